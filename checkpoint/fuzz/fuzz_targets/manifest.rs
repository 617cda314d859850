//! Any bytes as a manifest: refused, or kept to the letter of its rules and written back as the same value.

#![no_main]

use std::{
    collections::HashSet,
    path::{Component, Path},
};

use checkpoint::{
    hash::ContentHash,
    manifest::{EXTENT_MAX, FILES_MAX, FileEntry, MacKey, Manifest, PACK_MAX},
    path::OURS,
};
use checkpoint_fuzz::memory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parsed = memory::within(memory::of_document(bytes.len()), || Manifest::parse(bytes, None));
    let Ok(manifest) = parsed else { return };
    keeps_its_promises(&manifest);

    let (written, name) = manifest.encode(None).expect("what was read can be written");
    assert_eq!(ContentHash::of(&written), name);
    let unsigned = Manifest { mac: None, ..manifest };
    assert_eq!(Manifest::parse(&written, None).expect("what was written can be read"), unsigned);

    let key = MacKey::from_secret(b"operator");
    let (signed, _) = unsigned.encode(Some(&key)).expect("and signed");
    let read = Manifest::parse(&signed, Some(&key)).expect("and read with the key");
    assert_eq!(Manifest { mac: None, ..read }, unsigned);
    assert!(Manifest::parse(&signed, Some(&MacKey::from_secret(b"another"))).is_err());
});

fn keeps_its_promises(manifest: &Manifest) {
    assert!(manifest.files.len() <= FILES_MAX);
    assert!(manifest.fingerprint.facts.len() <= 256);
    if let Some(probe) = &manifest.fingerprint.probe {
        assert!(probe.tokens.len() <= 4096 && probe.top_logprobs.len() <= 4096);
        assert!(probe.top_logprobs.iter().all(|candidates| candidates.0.len() <= 256));
    }
    let paths: HashSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths.len(), manifest.files.len(), "a path is named twice");
    for file in &manifest.files {
        stays_beneath(&file.path);
        // Path::ancestors begins with the path itself and ends with the empty one.
        for above in Path::new(&file.path).ancestors().skip(1) {
            assert!(!paths.contains(above.to_str().expect("UTF-8")), "{} lies below a file", file.path);
        }
        adds_up(file);
    }
    let total: u128 = manifest.files.iter().map(|file| u128::from(file.size)).sum();
    assert_eq!(total, u128::from(manifest.bytes_total()));
}

fn stays_beneath(path: &str) {
    let components: Vec<Component<'_>> = Path::new(path).components().collect();
    assert!((1..=32).contains(&components.len()), "{path:?}");
    assert!(components.iter().all(|component| matches!(component, Component::Normal(_))), "{path:?}");
    assert!(components.iter().all(|component| component.as_os_str().len() <= 255), "{path:?}");
    assert!(components[0].as_os_str() != OURS, "{path:?}");
    assert!(path.len() <= 4095 && !path.contains('\0'), "{path:?}");
    // std's view of a path leaves out what means nothing; one spelling only.
    assert_eq!(components.iter().collect::<std::path::PathBuf>().as_os_str(), path);
}

fn adds_up(file: &FileEntry) {
    assert!(file.mode <= 0o777);
    let mut at = 0_u128;
    for extent in &file.extents {
        assert_eq!(u128::from(extent.offset), at);
        assert!((1..=EXTENT_MAX).contains(&extent.len));
        assert!(u128::from(extent.pack_offset) + u128::from(extent.len) <= u128::from(PACK_MAX));
        at += u128::from(extent.len);
    }
    assert_eq!(u128::from(file.size), at);
}
