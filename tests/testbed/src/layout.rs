//! Where things are: names, addresses and folders of a testbed.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The folder of every testbed as its own processes see it.
pub const INSIDE: &str = "/var/lib/lifeboat-testbed";
/// Where testbeds lie on the machine, one folder each.
pub const OUTSIDE: &str = "/var/tmp/lifeboat-testbed";
/// The API server, as pods know it.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The addresses of Services.
pub const SERVICES: &str = "10.96.0.0/24";
/// The control plane's own address.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The S3 server and the registry.
pub const S3: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// The S3 server's port; it speaks TLS with a certificate of the testbed's CA.
pub const S3_PORT: u16 = 7070;
/// The registry's port; plain HTTP.
pub const REGISTRY_PORT: u16 = 5000;
/// The bucket that is there from the start.
pub const BUCKET: &str = "lifeboat";
/// The S3 server's one account.
pub const ACCESS_KEY: &str = "lifeboat";
/// Its secret.
pub const SECRET_KEY: &str = "lifeboat-testbed";
/// Where a node's metadata service is told what to say.
pub const METADATA_CONTROL_PORT: u16 = 1338;

/// How long a kubelet that holds a shutdown up gives pods, and how much of it critical ones, seconds.
pub const SHUTDOWN: (u64, u64) = (30, 10);

/// What a node is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeOptions {
    /// Its name.
    pub name: String,
    /// The kubelet measures what emptyDirs hold and evicts a pod over its `sizeLimit`.
    #[serde(default)]
    pub isolation: bool,
    /// Its metadata service is amazon-ec2-metadata-mock with these arguments instead of ours.
    #[serde(default)]
    pub mock: Option<Vec<String>>,
    /// Labels beside the usual ones, as `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// On-demand instead of Spot.
    #[serde(default)]
    pub on_demand: bool,
    /// It has no images but those of every node (the pause container's and the agent's): others are pulled.
    #[serde(default)]
    pub lean: bool,
    /// Its kubelet holds a shutdown of the system up, for [`SHUTDOWN`]; see [`crate::request::Request::ShutDown`].
    #[serde(default)]
    pub holds_shutdown: bool,
}

impl NodeOptions {
    /// A Spot node with our own metadata service.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            isolation: false,
            mock: None,
            labels: Vec::new(),
            on_demand: false,
            lean: false,
            holds_shutdown: false,
        }
    }
}

/// A node's place in the network, by its number (from 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u8);

impl Place {
    /// The node's address.
    pub const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.0)
    }

    /// The addresses of its pods.
    pub fn pods(self) -> String {
        format!("10.88.{}.0/24", self.0)
    }
}

/// A testbed's folder, as seen from where `root` is.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// As the testbed's own processes see it.
    pub fn inside() -> Self {
        Self(INSIDE.into())
    }

    /// The testbed of this name on this machine.
    pub fn outside(name: &str) -> Self {
        Self(Path::new(OUTSIDE).join(name))
    }

    /// A path below it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// A node's folder.
    pub fn node(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The log of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.0.join("log").join(format!("{process}.log"))
    }

    /// A kubeconfig.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.0.join("pki").join(format!("{user}.kubeconfig"))
    }

    /// The supervisor's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// What the S3 server holds: `BUCKET/KEY` are files.
    pub fn objects(&self) -> PathBuf {
        self.0.join("s3")
    }
}
