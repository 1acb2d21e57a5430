//! A static file server for loopback: what the demo page and the tests load from.
//!
//! A thread per connection is plenty for one browser. Files go from disk to socket in pieces, since
//! a checkpoint may be larger than memory.

mod http;
pub mod hub;
mod respond;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::{Head, Request};

use crate::process::Result;

/// How many ports are tried from the first one on.
const TRIES: u16 = 100;
/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, and the path that it is served under.
pub struct Mount {
    /// The segments of the path; none for `/`.
    prefix: Vec<String>,
    folder: PathBuf,
}

impl Mount {
    /// `prefix` starts with `/`.
    pub fn new(prefix: &str, folder: PathBuf) -> Result<Self> {
        let path = prefix.strip_prefix('/');
        let path = path.ok_or_else(|| format!("{prefix:?} is no path: it must start with /"))?;
        if !folder.is_dir() {
            return Err(format!("there is no folder {} to serve", folder.display()).into());
        }
        let prefix = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Ok(Self { prefix, folder })
    }
}

/// A bound socket, with what it serves.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    mounts: Arc<[Mount]>,
    /// What browsers may do with every answer.
    policy: Option<Arc<str>>,
}

impl Server {
    /// Takes `port` of 127.0.0.1, or the next free one; 0 is any free one.
    pub fn bind(mut mounts: Vec<Mount>, port: u16) -> Result<Self> {
        // The longest prefix is the one that counts.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
        let listener = first_free(port)
            .map_err(|error| format!("cannot listen on 127.0.0.1, port {port}: {error}"))?;
        Ok(Self { address: listener.local_addr()?, listener, mounts: mounts.into(), policy: None })
    }

    /// Sends a `Content-Security-Policy` with every answer: workers take theirs from their own.
    pub fn with_policy(self, policy: &str) -> Self {
        Self { policy: Some(policy.into()), ..self }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends.
    pub fn run(self) -> ! {
        loop {
            let Ok((stream, _)) = self.listener.accept() else {
                // Most likely out of file descriptors, which others will give back.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let (mounts, policy) = (Arc::clone(&self.mounts), self.policy.clone());
            // Errors are a browser's leaving, or a thread too many: both end the connection only.
            let _ =
                thread::Builder::new().spawn(move || converse(&stream, &mounts, policy.as_deref()));
        }
    }
}

fn first_free(port: u16) -> io::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if port == 0 {
        return bind(0);
    }
    let mut outcome = bind(port);
    for next in (port..=port.saturating_add(TRIES)).skip(1) {
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => outcome = bind(next),
            settled => return settled,
        }
    }
    outcome
}

/// Answers the requests of one connection until either side has enough.
fn converse(stream: &TcpStream, mounts: &[Mount], policy: Option<&str>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let (response, keep) = match Request::read(&mut reader)? {
            Head::End => return Ok(()),
            Head::Bad(status) => (respond::error(status), false),
            Head::Whole(request) => (respond::respond(&request, mounts), request.keeps_alive()),
        };
        let response = match policy {
            Some(policy) => response.with("Content-Security-Policy", policy),
            None => response,
        };
        response.send(stream, keep)?;
        if !keep {
            return close(stream);
        }
    }
}

/// Says that no more will come, then lets the client finish: closing over unread bytes would reset
/// the connection, and the answer with it.
fn close(mut stream: &TcpStream) -> io::Result<()> {
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    const ENOUGH: u64 = 1 << 20;
    io::copy(&mut io::Read::take(stream, ENOUGH), &mut io::sink()).map(drop)
}
