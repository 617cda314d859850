//! An S3 stand-in that costs next to nothing, to see what a client costs.
//!
//! ```text
//!   client ──HTTP/1.1, plain or TLS 1.3──► a thread per connection ──► request ──► answer
//!                                            bodies are counted        Objects: sizes, versions, small bodies
//! ```
//!
//! What it shows: the client's processor time and memory, and how fast it is when the store is not what it waits for.
//! What it does not: truth. It looks at no signature, checks no checksum and keeps nothing on a disk; whether a store's
//! conditions, checksums and listings are used rightly is tested on versitygw (`tests/run s3`).
//!
//! Bodies of less than 1 MiB are kept, so that commits, listings and reads of documents work, with conditions decided under
//! one lock. Larger ones are counted and dropped, or kept in memory with `keep`, so that ranged reads give true
//! bytes.

mod answer;
mod body;
mod multipart;
mod objects;
mod request;
mod serve;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

pub use self::serve::Counts;
use self::{objects::Objects, serve::serve};
use crate::certificate::Identity;

/// Bodies up to this size are always kept, in bytes.
const SMALL: u64 = 1024 * 1024;

/// Where a sink listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// TLS.
    pub https: SocketAddr,
    /// Without: for the counts.
    pub http: SocketAddr,
}

/// Listens on two free ports of loopback, and serves until the process ends.
///
/// # Errors
/// If no port can be had.
pub fn start(identity: &Identity, keep: bool) -> io::Result<Addresses> {
    let objects = Arc::new(Objects::new(keep));
    let counts = Arc::new(Counts::default());
    let listen = |tls: Option<Arc<rustls::ServerConfig>>| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (objects, counts) = (Arc::clone(&objects), Arc::clone(&counts));
        thread::Builder::new().name("accept".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let (objects, counts, tls) = (Arc::clone(&objects), Arc::clone(&counts), tls.clone());
                let serving = move || {
                    // A client that goes away in the middle is its own business.
                    let _ = serve(stream, tls, &objects, &counts);
                };
                if let Err(error) = thread::Builder::new().name("serve".to_owned()).spawn(serving) {
                    eprintln!("sink: a connection is refused: {error}");
                }
            }
        })?;
        Ok::<_, io::Error>(address)
    };
    Ok(Addresses { https: listen(Some(Arc::clone(&identity.server)))?, http: listen(None)? })
}
