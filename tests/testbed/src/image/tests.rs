use super::archive::hex;
use super::*;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read as _;

/// The files of a tar by name, with their modes.
fn unpack(tar: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let target = entry.link_name().unwrap().map(|target| target.to_str().unwrap().as_bytes().to_vec());
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        (name, (entry.header().mode().unwrap(), target.unwrap_or(content)))
    });
    entries.collect()
}

fn tree(folder: &Path, content: &str) -> Root {
    let source = folder.join("source");
    std::fs::write(&source, content).unwrap();
    let mut root = Root::default();
    root.file("/usr/share/deep/file", &source).unwrap();
    root.link("/bin/link", "file");
    root.directory("/tmp", 0o1777);
    root
}

#[test]
fn the_manifest_names_the_configuration_and_the_layer_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"Entrypoint": ["/x"]});
    let root = tree(folder.path(), "content");
    let image = make_in(folder.path(), "registry.local/some:1", &root, config).unwrap();
    assert_eq!(image.name, "registry.local/some:1");

    let archive = unpack(&std::fs::read(&image.tar).unwrap());
    let manifest: Value = serde_json::from_slice(&archive["manifest.json"].1).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["registry.local/some:1"]));
    assert_eq!(manifest[0]["Layers"], json!(["layer.tar"]));
    let config_name = manifest[0]["Config"].as_str().unwrap();
    let config = &archive[config_name].1;
    assert_eq!(config_name, format!("{}.json", hex(&Sha256::digest(config))));
    let config: Value = serde_json::from_slice(config).unwrap();
    let layer = &archive["layer.tar"].1;
    assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", hex(&Sha256::digest(layer)))]));
    assert_eq!(config["config"], json!({"Entrypoint": ["/x"], "Env": [PATH]}));

    let layer = unpack(layer);
    let names: Vec<&str> = layer.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["bin", "bin/link", "tmp", "usr", "usr/share", "usr/share/deep", "usr/share/deep/file"]
    );
    assert_eq!(layer["usr/share/deep/file"], (0o644, b"content".to_vec()));
    assert_eq!(layer["bin/link"].1, b"file");
    assert_eq!(layer["tmp"].0, 0o1777);
}

#[test]
fn another_input_is_another_name_and_the_same_input_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = |folder: &Path, content: &str, config: Value| {
        make_in(folder, "registry.local/some:1", &tree(folder, content), config).unwrap().tar
    };
    let first = made(one.path(), "content", json!({}));
    let same = made(other.path(), "content", json!({}));
    assert_eq!(first.file_name(), same.file_name());
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&same).unwrap());
    assert_ne!(first, made(one.path(), "Content", json!({})));
    assert_ne!(first, made(one.path(), "content", json!({"Cmd": ["run"]})));
}

#[test]
fn tars_that_were_not_asked_for_in_a_day_are_removed_and_only_of_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let root = tree(folder.path(), "content");
    let made = |name: &str, mark: u32| {
        make_in(folder.path(), name, &root, json!({"Labels": {"mark": mark.to_string()}})).unwrap().tar
    };
    let age = |tar: &Path| {
        let file = std::fs::File::options().write(true).open(tar).unwrap();
        file.set_modified(SystemTime::now() - UNUSED * 2).unwrap();
    };
    let (old, reused, other) = (made("r/some:1", 1), made("r/some:1", 2), made("r/some-more:1", 1));
    for tar in [&old, &reused, &other] {
        age(tar);
    }
    assert_eq!(made("r/some:1", 2), reused);
    let new = made("r/some:1", 3);
    assert!(!old.exists());
    assert!(reused.exists() && other.exists() && new.exists());
}

#[test]
fn the_loader_s_list_is_read_and_a_missing_library_is_said() {
    let listed = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007e)\n\t/lib64/ld.so.2 => /usr/ld.so.2 (0x7d)\n";
    assert_eq!(
        programs::listed_libraries(listed).unwrap(),
        ["/lib/x/libc.so.6", "/lib64/ld.so.2", "/usr/ld.so.2"]
    );
    let missing = programs::listed_libraries("\tlibgone.so.1 => not found\n").unwrap_err();
    assert!(missing.to_string().contains("libgone.so.1"), "{missing}");
}

#[test]
fn a_program_loses_its_debug_information_and_still_runs() {
    let folder = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let mut root = Root::default();
    root.program("/program", &this).unwrap();
    let mut layer = Vec::new();
    root.write(&mut layer).unwrap();
    let packed = &unpack(&layer)["program"];
    assert_eq!(packed.0, 0o755);
    assert!(packed.1.len() as u64 <= this.metadata().unwrap().len());
    let copy = folder.path().join("program");
    tar::Archive::new(layer.as_slice()).unpack(folder.path()).unwrap();
    assert!(std::process::Command::new(copy).arg("--list").output().unwrap().status.success());
}
