//! Where an engine is, and which addresses are never dialled.

use super::EngineError;
use checkpoint::folder::Folder;
use evacuation::moment::Span;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// How an engine is spoken to (`lifeboat.dev/scheme`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS. Not built in: it is refused with what to do instead.
    Https,
}

/// One engine of one pod of this node.
#[derive(Clone)]
pub struct EngineTarget {
    /// The pod's address.
    pub ip: IpAddr,
    /// `lifeboat.dev/port`.
    pub port: u16,
    /// `lifeboat.dev/scheme`.
    pub scheme: Scheme,
    /// The bearer token from `lifeboat.dev/auth-file`.
    pub token: Option<String>,
    /// The pod's state volume.
    pub folder: Arc<Folder>,
    /// `lifeboat.dev/flush-timeout`: the longest a final flush may take.
    pub flush_timeout: Span,
    /// `lifeboat.dev/max-bytes`: the most that may be flushed.
    pub max_bytes: Option<u64>,
    /// What the agent itself knows and the engine must share with its successor: image digests, by name.
    pub facts: std::collections::BTreeMap<String, String>,
    /// `lifeboat.dev/compat-key`: the user's word where no evidence can be had.
    pub compat_key: Option<String>,
    /// Names this life of the engine's container: the container's id, or its start and the boot id. What was
    /// found out about an engine is believed for one life only.
    pub life: String,
    /// Loopback may be dialled: drills and tests, where engines are processes beside the agent.
    pub allow_loopback: bool,
}

impl EngineTarget {
    /// `http://ip:port`.
    pub fn base(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", std::net::SocketAddr::new(self.ip, self.port))
    }

    /// Refuses addresses that are no pod's. The address comes from the pod's status: whoever can write that
    /// must not be able to aim the agent at the node, at IMDS, or at everybody.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`] or [`EngineError::Unsupported`].
    pub(super) fn check(&self) -> Result<(), EngineError> {
        if self.scheme == Scheme::Https {
            return Err(EngineError::Unsupported {
                at: self.base(),
                why: "this build speaks plain HTTP to pods: set lifeboat.dev/scheme to http, or put a native sidecar \
                      that speaks contract v1 in front of the engine"
                    .to_owned(),
            });
        }
        let forbidden = |what| EngineError::Forbidden { ip: self.ip, what };
        let ip = self.ip.to_canonical();
        if ip.is_unspecified() {
            return Err(forbidden("the unspecified address"));
        }
        if ip.is_multicast() {
            return Err(forbidden("a multicast address"));
        }
        if ip.is_loopback() && !self.allow_loopback {
            return Err(forbidden("this node's loopback"));
        }
        let special = match ip {
            IpAddr::V4(v4) if v4.is_link_local() => Some("link-local, where instance metadata is"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
            // https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html: fd00:ec2::254 is
            // IMDS, and its neighbours are DNS (::253), time (::123) and Pod Identity (::23).
            IpAddr::V6(v6) if v6.segments()[..2] == [0xfd00, 0x0ec2] => {
                Some("instance metadata or its neighbours")
            }
            _ => None,
        };
        special.map_or(Ok(()), |what| Err(forbidden(what)))
    }
}

impl fmt::Debug for EngineTarget {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineTarget")
            .field("base", &self.base())
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}
