use std::collections::BTreeMap;

use super::*;

pub(crate) fn manifest() -> Manifest {
    let block = b"0123456789";
    let extent = |offset: u64| Extent {
        offset,
        len: 10,
        pack: ContentHash::of(b"pack"),
        pack_offset: offset,
        crc64: Crc64::of(block),
        blake3: Some(ContentHash::of(block)),
    };
    Manifest {
        format: FORMAT,
        workload: Workload::new("c", "ns", "w").unwrap(),
        lineage: LineageId::new("w-0").unwrap(),
        source: Source { namespace: "ns".into(), name: "w-0".into(), uid: "u".into(), node: "n".into() },
        revision: "r1".into(),
        spec_key: "s".into(),
        fingerprint: Fingerprint {
            facts: BTreeMap::from([("build".into(), "b".into())]),
            ..Fingerprint::default()
        },
        notice_id: None,
        parent: None,
        created: "2026-11-22T10:00:00Z".parse().unwrap(),
        partial: false,
        engine: serde_json::from_str(r#"{"slots":[{"id":0,"tokens":[1,2.5,-3,null,true,"x"]}]}"#).unwrap(),
        files: vec![
            FileEntry {
                path: "slots/0.bin".into(),
                size: 20,
                mode: 0o640,
                extents: vec![extent(0), extent(10)],
            },
            FileEntry { path: "empty".into(), size: 0, mode: 0o600, extents: vec![] },
        ],
        mac: None,
    }
}

#[test]
fn a_manifest_reads_back_and_begins_with_its_version() {
    let (bytes, name) = manifest().encode(None).unwrap();
    assert!(bytes.starts_with(br#"{"format":1,"#));
    assert_eq!(name, ContentHash::of(&bytes));
    assert_eq!(Manifest::parse(&bytes, None).unwrap(), manifest());
}

#[test]
fn numbers_are_read_as_exactly_as_they_were_written() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut manifest = manifest();
    let logprobs: Vec<f64> = (0..1000).map(|_| -10.0 * random.f64()).collect();
    manifest.engine.insert("logprobs".into(), logprobs.into());
    let (bytes, _) = manifest.encode(None).unwrap();
    assert!(Manifest::parse(&bytes, None).unwrap() == manifest);
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    // A newer shape must not matter: the version is what is wrong.
    let error = Manifest::parse(br#"{"format":7,"novel":[1,2,3]}"#, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "manifest format 7 is not known to this lifeboat (knows 1): upgrade the agent"
    );
}

#[test]
fn another_shape_is_refused_gracefully() {
    let (bytes, _) = manifest().encode(None).unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    for bad in [
        String::new(),
        "null".into(),
        "[]".into(),
        "<html>".into(),
        "{}".into(),
        text[..text.len() / 2].to_owned(),
        text.replacen("\"partial\":false", "\"partial\":\"no\"", 1),
        text.replacen("\"partial\":false", "\"partial\":false,\"novel\":1", 1),
        text.replacen("\"ns\"", "\"../ns\"", 1),
        text.replacen("\"w-0\"", "\"w/0\"", 1),
        text.replacen("\"len\":10", "\"len\":-10", 1),
        "[".repeat(100_000),
        format!("{{\"format\":1,\"engine\":{}", "[".repeat(100_000)),
    ] {
        let error = Manifest::parse(bad.as_bytes(), None).unwrap_err();
        assert!(matches!(error, ManifestError::Document(DocumentError::Malformed { .. })), "{error}");
    }
}

#[test]
fn a_hostile_manifest_is_refused_with_the_rule_it_breaks() {
    type Tamper = fn(&mut Manifest);
    let hostile: [(&str, Tamper); 14] = [
        ("component '.' or '..'", |m| m.files[0].path = "../../etc/cron.d/x".into()),
        ("absolute", |m| m.files[0].path = "/etc/passwd".into()),
        ("NUL", |m| m.files[0].path = "a\0b".into()),
        (".lifeboat/", |m| m.files[0].path = ".lifeboat/hold".into()),
        ("twice", |m| m.files[1].path = "slots/0.bin".into()),
        ("also named as a file", |m| m.files[1].path = "slots".into()),
        ("permission bits", |m| m.files[0].mode = 0o4755),
        ("gap or overlap", |m| m.files[0].extents[1].offset = 11),
        ("add up", |m| m.files[0].size = u64::MAX),
        ("add up", |m| m.files[1].size = 1),
        ("empty or longer", |m| m.files[0].extents[1].len = 0),
        ("empty or longer", |m| m.files[0].extents[1].len = u64::MAX),
        ("outside its pack", |m| m.files[0].extents[1].pack_offset = u64::MAX - 5),
        ("outside its pack", |m| m.files[0].extents[1].pack_offset = PACK_MAX),
    ];
    for (rule, tamper) in hostile {
        let mut manifest = manifest();
        tamper(&mut manifest);
        assert!(manifest.encode(None).is_err(), "{rule}: would have been written");
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let error = Manifest::parse(&bytes, None).unwrap_err().to_string();
        assert!(error.contains(rule), "{rule}: {error}");
    }
}

#[test]
fn counts_are_bounded_before_memory_is() {
    let with = |tamper: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(manifest()).unwrap();
        tamper(&mut value);
        Manifest::parse(value.to_string().as_bytes(), None).unwrap_err().to_string()
    };
    let error = with(&|value| value["engine"]["x"] = serde_json::Value::Array(vec![0.into(); 1_000_001]));
    assert!(error.contains("too many values"), "{error}");
    let error = with(&|value| value["files"] = vec![value["files"][1].clone(); FILES_MAX + 1].into());
    assert!(error.contains("more than 100000 elements"), "{error}");
    let probe = serde_json::json!({"prompt": "", "tokens": vec![1; 5000], "top_logprobs": []});
    let error = with(&|value| value["fingerprint"]["probe"] = probe.clone());
    assert!(error.contains("more than 4096"), "{error}");
    let facts: BTreeMap<_, _> = (0..300).map(|fact| (fact.to_string(), "")).collect();
    let error = with(&|value| value["fingerprint"]["facts"] = serde_json::json!(facts));
    assert!(error.contains("more than 256"), "{error}");
    let huge = vec![b' '; usize::try_from(BYTES_MAX).unwrap() + 1];
    assert!(matches!(
        Manifest::parse(&huge, None).unwrap_err(),
        ManifestError::Document(DocumentError::TooLarge { .. })
    ));
}

#[test]
fn only_the_operators_key_vouches_for_a_manifest() {
    let (ours, theirs) = (MacKey::from_secret(b"ours"), MacKey::from_secret(b"theirs"));
    let (signed, _) = manifest().encode(Some(&ours)).unwrap();
    let read = Manifest::parse(&signed, Some(&ours)).unwrap();
    assert_eq!(Manifest { mac: None, ..read }, manifest());
    // Who has no key can still read.
    Manifest::parse(&signed, None).unwrap();
    assert!(matches!(Manifest::parse(&signed, Some(&theirs)), Err(ManifestError::Mac(_))));
    let (unsigned, _) = manifest().encode(None).unwrap();
    assert!(matches!(Manifest::parse(&unsigned, Some(&ours)), Err(ManifestError::Mac(_))));
    let forged =
        String::from_utf8(signed.to_vec()).unwrap().replacen("\"partial\":false", "\"partial\":true ", 1);
    assert!(matches!(Manifest::parse(forged.as_bytes(), Some(&ours)), Err(ManifestError::Mac(_))));
    for short in [0, 1, 10, 70, 75] {
        let end = signed.len().min(short);
        assert!(Manifest::parse(&signed[signed.len() - end..], Some(&ours)).is_err());
    }
    assert!(!format!("{ours:?}").contains("ours"));
}

#[test]
fn files_on_given_packs_are_left_out_and_the_rest_is_said_to_be_partial() {
    let mut whole = manifest();
    assert_eq!(whole.leave_out(&[ContentHash::of(b"another pack")]), 0);
    assert_eq!(whole, manifest());
    assert_eq!(whole.leave_out(&[ContentHash::of(b"another pack"), ContentHash::of(b"pack")]), 1);
    assert_eq!(whole.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["empty"]);
    assert!(whole.partial && whole.packs().is_empty());
}
