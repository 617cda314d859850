//! What this machine can do at best, as JSON: copying memory, TCP and TLS over loopback.
//!
//! One stream per core and both ends on this machine, as when a client talks to the sink. The receiving end is the sink's
//! own ([`benchmarks::wire`]); the sending end is rustls as it is meant to be used, in writes of 1 MiB.

use std::{
    hint::black_box,
    io::{self, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use benchmarks::{
    certificate::{self, Identity},
    cost::Cost,
    wire::Wire,
};
use clap::Parser;
use nix::sys::resource::UsageWho::{RUSAGE_SELF, RUSAGE_THREAD};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
const WRITE: usize = 1024 * 1024;
/// Larger than the caches.
const COPIED: usize = 128 * 1024 * 1024;

/// This machine's floors.
#[derive(Parser)]
struct Args {
    /// How much each of them moves, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
}

fn main() -> Result<()> {
    let bytes = Args::parse().mib * MIB;
    let streams = thread::available_parallelism()?.get() as u64;
    let identity = certificate::make()?;
    println!(
        "{}",
        json!({
            "streams": streams,
            "memcpy": copy(bytes)?,
            "tcp": transfer(bytes, streams, None)?,
            "tls": transfer(bytes, streams, Some(&identity))?,
        })
    );
    Ok(())
}

fn copy(bytes: u64) -> Result<Value> {
    let from = vec![1_u8; COPIED];
    let mut to = vec![2_u8; COPIED];
    let rounds = bytes.div_ceil(COPIED as u64);
    let (began, before) = (Instant::now(), Cost::of(RUSAGE_SELF)?);
    for _ in 0..rounds {
        black_box(&mut to).copy_from_slice(black_box(&from));
    }
    let cpu = Cost::of(RUSAGE_SELF)?.cpu() - before.cpu();
    Ok(figures(rounds * COPIED as u64, began, cpu, None))
}

/// Moves `bytes` over `streams` connections.
fn transfer(bytes: u64, streams: u64, identity: Option<&Identity>) -> Result<Value> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let server = identity.map(|identity| Arc::clone(&identity.server));
    let client = identity.map(client_config).transpose()?;
    let each = bytes / streams;
    let (began, before) = (Instant::now(), Cost::of(RUSAGE_SELF)?);
    let receivers = thread::spawn(move || -> io::Result<Vec<thread::JoinHandle<io::Result<u64>>>> {
        (0..streams)
            .map(|_| {
                let (stream, _) = listener.accept()?;
                let server = server.clone();
                Ok(thread::spawn(move || receive(Wire::new(stream, server)?)))
            })
            .collect()
    });
    let senders: Vec<_> = (0..streams)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || -> Result<f64> {
                send(TcpStream::connect(address)?, client, each)?;
                Ok(Cost::of(RUSAGE_THREAD)?.cpu())
            })
        })
        .collect();
    let mut sending = 0.0;
    for sender in senders {
        sending += joined(sender.join())?;
    }
    let mut arrived = 0;
    for receiver in joined(receivers.join())? {
        arrived += joined(receiver.join())?;
    }
    anyhow::ensure!(arrived == each * streams, "{arrived} bytes of {bytes} arrived");
    let cpu = Cost::of(RUSAGE_SELF)?.cpu() - before.cpu();
    Ok(figures(arrived, began, cpu, Some(sending)))
}

fn receive(mut wire: Wire) -> io::Result<u64> {
    let mut arrived = 0;
    while wire.receive(&mut |piece| arrived += piece.len() as u64)? {}
    Ok(arrived)
}

fn send(stream: TcpStream, tls: Option<Arc<ClientConfig>>, bytes: u64) -> Result<()> {
    stream.set_nodelay(true)?;
    let block = vec![7_u8; WRITE];
    let write = |to: &mut dyn Write| -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let count = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            to.write_all(&block[..count])?;
            left -= count as u64;
        }
        to.flush()
    };
    match tls {
        None => write(&mut &stream)?,
        Some(config) => {
            let name = certificate::NAME.try_into().context("the name in the certificate")?;
            let mut connection = ClientConnection::new(config, name)?;
            // Room for one whole write; by default rustls takes 64 KiB of it at a time.
            connection.set_buffer_limit(Some(2 * WRITE));
            let mut stream = StreamOwned::new(connection, stream);
            write(&mut stream)?;
            stream.conn.send_close_notify();
            stream.flush()?;
            // What the other end said meanwhile is taken first: closing over unread bytes resets the connection, and what
            // is on its way is lost.
            stream.sock.shutdown(Shutdown::Write)?;
            io::copy(&mut stream.sock, &mut io::sink())?;
        }
    }
    Ok(())
}

fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.ca.clone())?;
    let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn figures(bytes: u64, began: Instant, cpu: f64, sending: Option<f64>) -> Value {
    let (seconds, gigabytes) = (began.elapsed().as_secs_f64(), bytes as f64 / 1e9);
    json!({
        "gb_per_second": gigabytes / seconds,
        "cpu_per_gb": cpu / gigabytes,
        "sending_cpu_per_gb": sending.map(|cpu| cpu / gigabytes),
    })
}

fn joined<T, E: Into<anyhow::Error>>(result: thread::Result<Result<T, E>>) -> Result<T> {
    result.map_err(|_| anyhow!("a thread panicked"))?.map_err(Into::into)
}
