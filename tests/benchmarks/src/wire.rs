//! The serving end of a connection, plain or TLS, as cheap as it gets.
//!
//! TLS goes through rustls' unbuffered interface: records are opened where they were read, hundreds of KiB at a time.
//! The buffered one reads 4 KiB at a time and copies twice, and would be a good part of what is measured.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

/// Bytes asked of the kernel at once.
const READ: usize = 512 * 1024;
/// Bytes encrypted and handed to the kernel at once.
const WRITE: usize = 256 * 1024;
/// What a record adds to its up to 16 KiB: header, content type and tag.
const RECORD: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 64;

/// One connection.
pub enum Wire {
    /// TCP.
    Plain(TcpStream, Vec<u8>),
    /// TLS 1.3.
    Tls(Box<Tls>),
}

/// The serving end of TLS.
pub struct Tls {
    stream: TcpStream,
    connection: UnbufferedServerConnection,
    /// What was read: `incoming[start..end]` is not digested yet.
    incoming: Vec<u8>,
    start: usize,
    end: usize,
    outgoing: Vec<u8>,
    /// Room for encrypted answers, kept at its size.
    sealed: Vec<u8>,
}

impl Wire {
    /// Serves `stream`, with TLS if there is a configuration.
    ///
    /// # Errors
    /// If the socket or rustls refuses.
    pub fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(match tls {
            None => Self::Plain(stream, vec![0; READ]),
            Some(config) => Self::Tls(Box::new(Tls {
                stream,
                connection: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
                incoming: vec![0; READ],
                start: 0,
                end: 0,
                outgoing: Vec::new(),
                sealed: Vec::new(),
            })),
        })
    }

    /// Waits for bytes and hands them to `take`, piece by piece. `false` at the end of the connection.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        match self {
            Self::Plain(stream, buffer) => {
                let count = stream.read(buffer)?;
                take(&buffer[..count]);
                Ok(count > 0)
            }
            Self::Tls(tls) => tls.receive(take),
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream, _) => stream.write_all(bytes),
            Self::Tls(tls) => bytes.chunks(WRITE).try_for_each(|piece| tls.send(piece)),
        }
    }
}

impl Tls {
    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let mut taken = false;
        loop {
            let Self { connection, incoming, start, end, .. } = self;
            let UnbufferedStatus { mut discard, state } =
                connection.process_tls_records(&mut incoming[*start..*end]);
            let mut hungry = false;
            match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        take(record.payload);
                    }
                    taken = true;
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let before = self.outgoing.len();
                    let written = match data.encode(&mut []) {
                        Err(EncodeError::InsufficientSize(size)) => {
                            self.outgoing.resize(before + size.required_size, 0);
                            data.encode(&mut self.outgoing[before..]).map_err(io::Error::other)?
                        }
                        other => other.map_err(io::Error::other)?,
                    };
                    self.outgoing.truncate(before + written);
                }
                ConnectionState::TransmitTlsData(data) => {
                    self.stream.write_all(&self.outgoing)?;
                    self.outgoing.clear();
                    data.done();
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => hungry = true,
                ConnectionState::PeerClosed | ConnectionState::Closed => return Ok(false),
                other => return Err(io::Error::other(format!("unexpected TLS state: {other:?}"))),
            }
            *start += discard;
            if hungry {
                if taken {
                    return Ok(true);
                }
                if !self.read()? {
                    return Ok(false);
                }
            }
        }
    }

    /// Reads more behind what is left of a record.
    fn read(&mut self) -> io::Result<bool> {
        self.incoming.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = match self.stream.read(&mut self.incoming[self.end..]) {
            // Many clients go without a farewell.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            count => count?,
        };
        self.end += count;
        Ok(count > 0)
    }

    fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        let room = piece.len() + (piece.len() / RECORD + 1) * RECORD_OVERHEAD;
        if self.sealed.len() < room {
            self.sealed.resize(room, 0);
        }
        let Self { connection, incoming, start, end, sealed, stream, .. } = self;
        let UnbufferedStatus { discard, state } = connection.process_tls_records(&mut incoming[*start..*end]);
        *start += discard;
        let ConnectionState::WriteTraffic(mut traffic) = state.map_err(io::Error::other)? else {
            return Err(io::Error::other("the client speaks before it was answered"));
        };
        let written = traffic.encrypt(piece, sealed).map_err(|error| match error {
            EncryptError::InsufficientSize(size) => {
                io::Error::other(format!("a record needs {} bytes", size.required_size))
            }
            EncryptError::EncryptExhausted => io::Error::other("this connection's key is used up"),
        })?;
        stream.write_all(&sealed[..written])
    }
}
