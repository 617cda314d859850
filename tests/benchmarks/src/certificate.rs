//! A certificate for this machine's loopback, made anew at each start.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// The name in the certificate, besides 127.0.0.1.
pub const NAME: &str = "localhost";

/// What both ends need.
pub struct Identity {
    /// The authority, for clients that take a file.
    pub ca_pem: String,
    /// The authority, for clients of ours.
    pub ca: CertificateDer<'static>,
    /// For the serving end: TLS 1.3 only.
    pub server: Arc<ServerConfig>,
}

/// Makes an authority and, signed by it, a certificate for loopback. An authority of its own, as not every client takes a
/// server's certificate as its trust anchor.
///
/// # Errors
/// If keys cannot be made.
pub fn make() -> Result<Identity> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(rcgen::DnType::CommonName, "tests/bench");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(rcgen::DnType::CommonName, NAME);
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &issuer)?;

    let server = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone(), ca_certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )?;
    Ok(Identity { ca_pem: ca_certificate.pem(), ca: ca_certificate.der().clone(), server: Arc::new(server) })
}
