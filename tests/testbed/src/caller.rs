//! Somebody with a bearer token: what the API server answers to a stranger's requests, code and message.

use crate::Testbed;
use anyhow::{Context, Result};
use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Who holds a token.
#[derive(Clone)]
pub struct Caller(kube::Client);

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

/// What the API server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The body; `Null` if it's no JSON.
    pub body: Value,
}

impl Caller {
    /// Who presents this token and nothing else.
    ///
    /// # Errors
    /// The cluster's own configuration cannot be read.
    pub async fn with_token(bed: &Testbed, token: &str) -> Result<Self> {
        let kubeconfig = kube::config::Kubeconfig::read_from(bed.folder().kubeconfig("admin"))?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        config.auth_info = serde_json::from_value(json!({"token": token.trim()}))?;
        Ok(Self(kube::Client::try_from(config)?))
    }

    /// Asks, as `impersonated` (a user, then its groups) if there is one. A refusal is an answer.
    ///
    /// # Errors
    /// The API server is not there.
    pub async fn ask(&self, method: &str, path: &str, body: &Value, impersonated: &[&str]) -> Result<Answer> {
        let content =
            if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_null() {
            request = request.header(http::header::CONTENT_TYPE, content);
        }
        for (position, name) in impersonated.iter().enumerate() {
            request =
                request.header(if position == 0 { "Impersonate-User" } else { "Impersonate-Group" }, *name);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.0.send(request.body(Body::from(body))?).await?;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await?;
        Ok(Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }
}

/// The token that a kubelet mounted into a pod of this node, read from the node's disk as somebody does who has taken over
/// the node. It lies in a tmpfs that only the testbed's own processes see.
///
/// # Errors
/// The pod has none.
pub fn mounted_token(bed: &Testbed, node: &str, uid: &str) -> Result<String> {
    let projected = format!("kubelet/pods/{uid}/volumes/kubernetes.io~projected");
    let folder = inside(bed)?.join(node).join(projected);
    let volumes = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let tokens = volumes.flatten().map(|volume| volume.path().join("token"));
    let token = tokens.filter_map(|token| std::fs::read_to_string(token).ok()).next();
    token.with_context(|| format!("no token in {}", folder.display()))
}

/// The testbed's folder with all that is mounted inside.
fn inside(bed: &Testbed) -> Result<PathBuf> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let stream = std::os::unix::net::UnixStream::connect(bed.folder().socket())?;
    let pid = getsockopt(&stream, PeerCredentials)?.pid();
    Ok(PathBuf::from(format!("/proc/{pid}/root{}", crate::layout::INSIDE)))
}
