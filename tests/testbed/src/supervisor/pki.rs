//! The testbed's certificate authority, certificates, tokens and kubeconfigs.

use crate::layout::{API, CONTROL_PLANE, Folder, S3};
use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

/// Writes all of it. Keys are new for each testbed.
pub fn write(folder: &Folder, nodes: &[&str]) -> Result<()> {
    let pki = folder.path("pki");
    std::fs::create_dir_all(&pki)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "lifeboat testbed");
    std::fs::write(pki.join("ca.crt"), params.self_signed(&key)?.pem())?;
    let ca = Issuer::new(params, key);

    let addresses = [API.into(), CONTROL_PLANE.into(), IpAddr::from([127, 0, 0, 1])];
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    certificate(&ca, &pki, "api", ("kube-apiserver", None), &addresses, &names, server.clone())?;
    certificate(&ca, &pki, "s3", ("s3", None), &[S3.into()], &["s3"], server)?;
    // The API server shows this to kubelets, for logs and exec.
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    certificate(&ca, &pki, "kubelet-client", ("kube-apiserver", Some("system:masters")), &[], &[], client)?;

    // Signs service account tokens.
    let accounts = KeyPair::generate()?;
    std::fs::write(pki.join("sa.key"), accounts.serialize_pem())?;
    std::fs::write(pki.join("sa.pub"), accounts.public_key_pem())?;

    let tokens = [
        ("admin", "admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", "system:masters"),
        ("scheduler", "system:kube-scheduler", ""),
    ];
    for (file, user, group) in tokens {
        account(folder, file, user, group)?;
    }
    // Nodes that come later have a token already: the API server reads the file once.
    for node in nodes.iter().map(|name| (*name).to_owned()).chain(later()) {
        account(folder, &node, &format!("system:node:{node}"), "system:nodes")?;
    }
    Ok(())
}

/// The names that a node added later may have besides those of the plan.
fn later() -> impl Iterator<Item = String> {
    ('a'..='z').map(|letter| format!("node-{letter}"))
}

/// A node that is added later must have one of the names that the API server has a token for.
pub fn node(folder: &Folder, name: &str) -> Result<()> {
    anyhow::ensure!(
        folder.kubeconfig(name).exists(),
        "a node that is added later is called node-a to node-z, not {name}: the API server reads its tokens once"
    );
    Ok(())
}

fn account(folder: &Folder, file: &str, user: &str, group: &str) -> Result<()> {
    let kubeconfig = folder.kubeconfig(file);
    if kubeconfig.exists() {
        return Ok(());
    }
    let token = format!("{file}-{:032x}", fastrand::u128(..));
    let mut tokens = OpenOptions::new().create(true).append(true).open(folder.path("pki/tokens.csv"))?;
    writeln!(tokens, "{token},{user},{user},\"{group}\"")?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {
            "server": format!("https://{API}:443"),
            "certificate-authority-data": base64(&std::fs::read(folder.path("pki/ca.crt"))?),
        }}],
        "users": [{"name": file, "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": file}}],
        "current-context": "testbed",
    });
    std::fs::write(kubeconfig, serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn certificate(
    ca: &Issuer<'_, KeyPair>,
    pki: &Path,
    file: &str,
    (name, organisation): (&str, Option<&str>),
    addresses: &[IpAddr],
    names: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(organisation) = organisation {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    std::fs::write(pki.join(format!("{file}.crt")), params.signed_by(&key, ca)?.pem())?;
    std::fs::write(pki.join(format!("{file}.key")), key.serialize_pem())?;
    Ok(())
}
