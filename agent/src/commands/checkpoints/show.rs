//! `show`: one generation, and whether its fingerprint is another one's.

use super::catalog::{Catalog, Chosen, soon};
use super::list::age;
use super::standing::{self, LineageStatus};
use super::target::{self, Target};
use super::{CheckpointsFailure, CommandOutput};
use crate::commands::page::{Page, count, size};
use crate::runtime::config::StoreArgs;
use checkpoint::fingerprint::{Fingerprint, Mismatch};
use checkpoint::hash::ContentHash;
use checkpoint::intent::Intent;
use checkpoint::manifest::{Manifest, Source};
use checkpoint::save;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What `show` answers.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    namespace: String,
    workload: String,
    lineage: String,
    generation: String,
    manifest: ContentHash,
    created: Timestamp,
    age_seconds: u64,
    pub(super) partial: bool,
    #[serde(flatten)]
    standing: LineageStatus,
    source: Source,
    revision: String,
    notice_id: Option<String>,
    parent: Option<String>,
    spec_key: String,
    fingerprint_digest: String,
    fingerprint: Fingerprint,
    engine: serde_json::Map<String, serde_json::Value>,
    bytes: u64,
    files: Vec<File>,
    pub(super) packs: Vec<Pack>,
    other_generations: Vec<String>,
    unreadable: Vec<String>,
    against: Option<Against>,
}

/// A file.
#[derive(Debug, Serialize)]
struct File {
    path: String,
    bytes: u64,
    /// Permission bits, in octal.
    mode: String,
    extents: usize,
    packs: usize,
}

/// A pack that the generation needs.
#[derive(Debug, Serialize)]
pub(super) struct Pack {
    pub(super) pack: ContentHash,
    /// Its size in the store; `null` if it is missing there or was not listed.
    bytes: Option<u64>,
    /// How much of it this generation names.
    named_bytes: u64,
    files: usize,
    pub(super) missing: bool,
}

/// Another generation's fingerprint beside this one's.
#[derive(Debug, Serialize)]
struct Against {
    generation: String,
    /// A state of this generation may be handed to an engine that the other one was saved from.
    fits: bool,
    same_spec_key: bool,
    /// The first fact that differs, `compat-key`, `weights` or `evidence`.
    differs_in: Option<String>,
    /// The same in a sentence; "was" is this generation, "is" the other.
    difference: Option<String>,
}

/// Shows the generation that `target` names.
pub(super) async fn show(
    args: &StoreArgs,
    target: &Target,
    other: Option<&Target>,
) -> Result<Shown, CheckpointsFailure> {
    let catalog = Catalog::open(args).await?;
    let chosen = catalog.choose(target).await?;
    let against = match other {
        Some(other) => Some(compare(&chosen, &catalog.choose(other).await?)),
        None => None,
    };
    let Chosen { workload, lineage, generation, manifest, others, mut unreadable } = chosen;
    let store = catalog.store.as_ref();
    let intent = Intent::read(store, &workload, &lineage, soon()).await.unwrap_or_else(|error| {
        unreadable.push(format!("intent: {error}"));
        None
    });
    let claim = catalog.claims().read(&workload, &lineage, soon()).await.unwrap_or_else(|error| {
        unreadable.push(format!("claim: {error}"));
        None
    });
    let stored = match save::known_packs(&catalog.store, &workload, soon()).await {
        Ok(stored) => Some(stored),
        Err(error) => {
            unreadable.push(format!("the list of packs: {error}"));
            None
        }
    };
    Ok(Shown {
        namespace: workload.namespace().to_owned(),
        workload: workload.name().to_owned(),
        lineage: lineage.to_string(),
        generation: target::short(generation.number),
        manifest: generation.manifest,
        created: generation.created,
        age_seconds: age(generation.created, Timestamp::now()).as_secs(),
        partial: generation.partial,
        standing: standing::judge(Some(&generation), intent.as_ref(), claim.as_ref()),
        source: generation.source,
        revision: manifest.revision.clone(),
        notice_id: manifest.notice_id.clone(),
        parent: manifest
            .parent
            .as_ref()
            .map(|parent| format!("{}/{}", parent.lineage, target::short(parent.generation))),
        spec_key: manifest.spec_key.clone(),
        fingerprint_digest: manifest.fingerprint.digest(),
        bytes: manifest.bytes_total(),
        files: files(&manifest),
        packs: packs(&manifest, stored.as_ref()),
        fingerprint: manifest.fingerprint,
        engine: manifest.engine,
        other_generations: others.into_iter().map(target::short).collect(),
        unreadable,
        against,
    })
}

fn compare(chosen: &Chosen, other: &Chosen) -> Against {
    let mismatch = chosen.manifest.fingerprint.compare(&other.manifest.fingerprint).err();
    Against {
        generation: other.name(),
        fits: mismatch.is_none(),
        same_spec_key: chosen.manifest.spec_key == other.manifest.spec_key,
        differs_in: mismatch.as_ref().map(|mismatch| match mismatch {
            Mismatch::Fact { fact, .. } => fact.clone(),
            Mismatch::CompatKey { .. } => "compat-key".to_owned(),
            Mismatch::Weights(_) => "weights".to_owned(),
            Mismatch::NoEvidence => "evidence".to_owned(),
        }),
        difference: mismatch.map(|mismatch| mismatch.to_string()),
    }
}

fn files(manifest: &Manifest) -> Vec<File> {
    let of = |file: &checkpoint::manifest::FileEntry| File {
        path: file.path.clone(),
        bytes: file.size,
        mode: format!("{:03o}", file.mode),
        extents: file.extents.len(),
        packs: file.extents.iter().map(|extent| extent.pack).collect::<BTreeSet<_>>().len(),
    };
    manifest.files.iter().map(of).collect()
}

fn packs(manifest: &Manifest, stored: Option<&HashMap<ContentHash, u64>>) -> Vec<Pack> {
    let mut named: BTreeMap<ContentHash, (u64, usize, usize)> = BTreeMap::new();
    for (index, file) in manifest.files.iter().enumerate() {
        for extent in &file.extents {
            let (bytes, files, last) = named.entry(extent.pack).or_insert((0, 0, usize::MAX));
            *bytes = bytes.saturating_add(extent.len);
            *files += usize::from(*last != index);
            *last = index;
        }
    }
    let pack = |(pack, (named_bytes, files, _))| {
        let bytes = stored.and_then(|stored| stored.get(&pack).copied());
        Pack { pack, bytes, named_bytes, files, missing: stored.is_some() && bytes.is_none() }
    };
    named.into_iter().map(pack).collect()
}

impl CommandOutput for Shown {
    fn page(&self, page: &mut Page) {
        let Self { source, standing, .. } = self;
        let none = || "-".to_owned();
        let age = crate::commands::page::short(std::time::Duration::from_secs(self.age_seconds));
        page.facts(&[
            (
                "generation",
                format!("{}/{}/{}/{}", self.namespace, self.workload, self.lineage, self.generation),
            ),
            ("state", format!("{} {}", standing.state.as_str(), standing.note).trim_end().to_owned()),
            (
                "whole",
                if self.partial { "no: partial, a part of the files".into() } else { "yes".to_owned() },
            ),
            ("created", format!("{} ({age} ago)", self.created)),
            ("source", format!("pod {} (uid {}) on node {}", source.name, source.uid, source.node)),
            ("revision", self.revision.clone()),
            ("notice", self.notice_id.clone().unwrap_or_else(none)),
            ("parent", self.parent.clone().unwrap_or_else(none)),
            ("manifest", self.manifest.to_string()),
            ("spec key", self.spec_key.clone()),
            ("fingerprint", self.fingerprint_digest.clone()),
        ]);
        let fingerprint = &self.fingerprint;
        for (fact, value) in &fingerprint.facts {
            page.line(&format!("  {fact}: {value}"));
        }
        if let Some(probe) = &fingerprint.probe {
            page.line(&format!(
                "  probe: {} answered to {:?}",
                count(probe.tokens.len(), "token"),
                probe.prompt
            ));
        }
        if let Some(key) = &fingerprint.compat_key {
            page.line(&format!("  compat-key: {key}"));
        }
        for (name, value) in &self.engine {
            let short: String = value.to_string().chars().take(100).collect();
            page.line(&format!("engine {name}: {short}"));
        }
        if !self.other_generations.is_empty() {
            page.line(&format!("other generations: {}", self.other_generations.join(", ")));
        }
        if let Some(against) = &self.against {
            let what = against.difference.as_deref().unwrap_or("the fingerprints fit");
            let spec = if against.same_spec_key { "the same" } else { "another" };
            page.line(&format!("against {}: {what}; {spec} spec key", against.generation));
        }
        page.line("");
        let file = |f: &File| vec![f.path.clone(), size(f.bytes), f.mode.clone(), f.packs.to_string()];
        page.table(&["FILE", ">BYTES", "MODE", ">PACKS"], &self.files.iter().map(file).collect::<Vec<_>>());
        page.line("");
        let pack = |p: &Pack| {
            let stored = p.bytes.map_or_else(|| if p.missing { "missing".into() } else { none() }, size);
            vec![p.pack.to_string(), stored, size(p.named_bytes), p.files.to_string()]
        };
        page.table(&["PACK", ">BYTES", ">NAMED", ">FILES"], &self.packs.iter().map(pack).collect::<Vec<_>>());
        page.line("");
        let (files, packs) = (count(self.files.len(), "file"), count(self.packs.len(), "pack"));
        page.line(&format!("{files}, {}, in {packs}", size(self.bytes)));
        for why in &self.unreadable {
            page.line(&format!("not readable: {why}"));
        }
    }
}
