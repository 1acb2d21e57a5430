//! A stand-in for the Hugging Face Hub and its CDN: serves folders as models, and goes wrong where
//! a test asks for it.
//!
//! `POST /_control` takes rules and settings, `GET /_log` gives the requests so far; both are
//! described in `tests/browser/hub.mjs`.

mod answer;
mod control;
mod fault;
mod generated;
mod log;
mod repository;
mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::answer::{Answer, Shape, be_silent};
use self::fault::{Fault, Occasion, Rule};
use self::log::{Entry, Log};
use self::repository::{Repository, Snapshot};
use self::route::Target;
use super::http::{self, Head, Request};
use super::{PATIENCE, close, first_free};
use crate::process::Result;

pub use repository::MAIN;

/// How long a signed address is good, milliseconds; the Hub's hour.
const SIGNATURE_MS: u64 = 3_600_000;

/// Entries of a page of the tree at most; the Hub's.
const PAGE_SIZE: usize = 1000;

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Where addresses and small files are.
    Hub,
    /// Where it redirects to for large files.
    Cdn,
}

/// All that the answers depend on.
struct World {
    hub: SocketAddr,
    cdn: SocketAddr,
    secret: String,
    models: BTreeMap<String, Repository>,
    /// The token that a gated model's files are to be had with.
    gates: BTreeMap<String, String>,
    signature_ms: u64,
    page_size: usize,
    rules: Vec<Rule>,
    log: Log,
}

impl World {
    /// Undoes what a test has asked for, but for what it has published.
    fn reset(&mut self) {
        self.gates.clear();
        self.signature_ms = SIGNATURE_MS;
        self.page_size = PAGE_SIZE;
        self.rules.clear();
        self.log = Log::default();
    }

    /// Where it listens and what it has.
    fn to_json(&self) -> Value {
        let models = self.models.iter().map(|(id, repository)| {
            let branches = repository.branches().map(|(name, commit)| (name, json!(commit)));
            (id.clone(), branches.map(|(name, commit)| (name.to_owned(), commit)).collect())
        });
        json!({
            "hub": format!("http://{}", self.hub),
            "cdn": format!("http://{}", self.cdn),
            "models": models.collect::<serde_json::Map<_, _>>(),
            "rules": self.rules,
        })
    }
}

/// What the threads share.
struct Shared {
    start: Instant,
    world: Mutex<World>,
    /// The open ones, by number.
    connections: Mutex<BTreeMap<u64, TcpStream>>,
    next_connection: AtomicU64,
    /// Until when no connection can be made.
    down: Mutex<Instant>,
    addresses: [SocketAddr; 2],
}

/// What another thread left behind is as good as it was: no change here is made in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both servers, bound.
pub struct HubServer {
    shared: Arc<Shared>,
    hub: TcpListener,
    cdn: TcpListener,
}

impl HubServer {
    /// Takes `port` of 127.0.0.1, or the next free one, for the Hub; any free one for the CDN.
    pub fn bind(port: u16) -> Result<Self> {
        let hub = first_free(port)
            .map_err(|error| format!("cannot listen on 127.0.0.1, port {port}: {error}"))?;
        let cdn = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addresses = [hub.local_addr()?, cdn.local_addr()?];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let world = World {
            hub: addresses[0],
            cdn: addresses[1],
            secret: format!("{}-{}", std::process::id(), now.as_nanos()),
            models: BTreeMap::new(),
            gates: BTreeMap::new(),
            signature_ms: SIGNATURE_MS,
            page_size: PAGE_SIZE,
            rules: Vec::new(),
            log: Log::default(),
        };
        let shared = Shared {
            start: Instant::now(),
            world: Mutex::new(world),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(0),
            down: Mutex::new(Instant::now()),
            addresses,
        };
        Ok(Self { shared: Arc::new(shared), hub, cdn })
    }

    /// Serves a folder as the model `id`, at a branch.
    pub fn publish(&self, id: &str, branch: &str, folder: &Path) -> Result {
        self.shared.publish(id, branch, folder)
    }

    /// Both addresses, and the models with the commits of their branches.
    pub fn description(&self) -> Value {
        let mut description = lock(&self.shared.world).to_json();
        if let Some(fields) = description.as_object_mut() {
            fields.remove("rules");
        }
        description
    }

    /// Serves until the process ends.
    pub fn run(self) -> ! {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || serve(self.cdn, Origin::Cdn, &shared));
        serve(self.hub, Origin::Hub, &self.shared)
    }
}

fn serve(mut listener: TcpListener, origin: Origin, shared: &Arc<Shared>) -> ! {
    let address = shared.addresses[origin as usize];
    loop {
        let accepted = listener.accept();
        let number = shared.next_connection.fetch_add(1, Ordering::Relaxed);
        if let Ok((stream, _)) = &accepted
            && let Ok(stream) = stream.try_clone()
        {
            lock(&shared.connections).insert(number, stream);
        }
        // After that, so that no connection outlives the moment: `restart` looks the other way
        // round.
        if shared.time_down().is_some() {
            lock(&shared.connections).remove(&number);
            drop((accepted, listener));
            listener = shared.bind_again(address);
            continue;
        }
        let Ok((stream, _)) = accepted else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let shared = Arc::clone(shared);
        // As in the server for folders, errors end the connection only.
        let _ = thread::Builder::new().spawn(move || {
            let _ = converse(&stream, origin, &shared);
            lock(&shared.connections).remove(&number);
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// Answers the requests of one connection.
fn converse(stream: &TcpStream, origin: Origin, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let request = match Request::read(&mut reader)? {
            Head::End => return Ok(()),
            Head::Bad(status) => {
                Answer::text(status, http::reason(status)).send_bare(stream)?;
                return close(stream);
            }
            Head::Whole(request) => request,
        };
        let Some(target) = Target::parse(&request.target) else {
            Answer::text(400, http::reason(400)).send_bare(stream)?;
            return close(stream);
        };
        let keep = match control::name(origin, &target) {
            Some(name) => control::answer(name, &request, &mut reader, stream, shared)?,
            None => shared.answer(&request, &target, origin, stream)?,
        };
        if !keep {
            return close(stream);
        }
    }
}

impl Shared {
    fn publish(&self, id: &str, branch: &str, folder: &Path) -> Result {
        let parts: Vec<_> = id.split('/').collect();
        if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
            return Err(format!("{id:?} names no model: write OWNER/NAME").into());
        }
        let snapshot = Snapshot::of(folder)?;
        lock(&self.world).models.entry(id.to_owned()).or_default().publish(branch, snapshot);
        Ok(())
    }

    /// Answers a request, unless something goes wrong; whether another may follow.
    fn answer(
        &self,
        request: &Request,
        target: &Target,
        origin: Origin,
        stream: &TcpStream,
    ) -> io::Result<bool> {
        let (answer, fault, entry) = {
            let world = &mut *lock(&self.world);
            let entry = world.log.add(Entry {
                number: world.log.next(),
                at: self.start.elapsed().as_millis() as u64,
                origin,
                method: request.method.clone(),
                path: target.path(),
                query: target.query.clone(),
                file: Default::default(),
                range: request.header("range").map(str::to_owned),
                authorization: request.header("authorization").is_some(),
                asks: request.header("access-control-request-headers").map(str::to_owned),
                fault: Default::default(),
                status: Default::default(),
                sent: Default::default(),
                done: Default::default(),
            });
            let answer = route::answer(origin, request, target, world);
            if let Some(file) = &answer.file {
                let _ = entry.file.set(file.clone());
            }
            let fault = fault::pick(
                &mut world.rules,
                &Occasion {
                    origin,
                    request,
                    path: &entry.path,
                    file: answer.file.as_deref().map(in_repository),
                    has_body: answer.wanted,
                    range: answer.range(request).filter(|_| answer.wanted),
                },
            );
            (answer, fault, entry)
        };
        let Some(fault) = fault else {
            return answer.send(request, &Shape::default(), stream, Some(&entry));
        };
        let _ = entry.fault.set(fault.kind());
        let mut shape = Shape::default();
        let instead = |answer| route::cors(origin, request, answer);
        let answer = match fault {
            Fault::Cut { after } => {
                shape.cut = Some(after);
                answer
            }
            Fault::Length { delta } => {
                shape.delta = delta;
                answer
            }
            Fault::Bytes { at, count } => {
                shape.flip = Some((at, count));
                answer
            }
            Fault::Slow { bytes_per_second } => {
                shape.rate = Some(bytes_per_second.max(1));
                answer
            }
            Fault::Stall { after, ms } => {
                shape.stall = Some((after, Duration::from_millis(ms)));
                answer
            }
            Fault::IgnoreRange {} => {
                shape.whole = true;
                answer
            }
            Fault::Gzip {} => {
                shape.gzip = true;
                answer
            }
            Fault::NoCors {} => answer.without_cors(),
            Fault::Expired {} => instead(route::denied()),
            Fault::RedirectLoop {} => instead(Answer::redirect(302, "/_loop/1".into())),
            Fault::Html {} => instead(
                Answer::text(200, "<!doctype html><title>Welcome</title><p>Log in to go on.")
                    .with("Content-Type", "text/html; charset=utf-8"),
            ),
            Fault::Status { status, retry_after, expose } => {
                let mut answer = instead(Answer::text(status, "as the test asked"));
                if let Some(seconds) = retry_after {
                    answer = answer.with("Retry-After", seconds.to_string());
                }
                if expose {
                    answer = answer.with("Access-Control-Expose-Headers", "Retry-After");
                }
                answer
            }
            Fault::Hang { ms } => {
                be_silent(stream, Duration::from_millis(ms))?;
                return Ok(false);
            }
            Fault::Restart { ms } => {
                self.restart(Duration::from_millis(ms));
                return Ok(false);
            }
        };
        answer.send(request, &shape, stream, Some(&entry))
    }

    /// Ends all connections, and lets none be made for a time.
    fn restart(&self, time: Duration) {
        *lock(&self.down) = Instant::now() + time;
        for stream in lock(&self.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes those who wait for connections; they look at the time before anything else.
        for address in self.addresses {
            let _ = TcpStream::connect(address);
        }
    }

    /// Listens again, when the time has come.
    fn bind_again(&self, address: SocketAddr) -> TcpListener {
        loop {
            while let Some(wait) = self.time_down() {
                thread::sleep(wait);
            }
            match TcpListener::bind(address) {
                Ok(listener) => return listener,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn time_down(&self) -> Option<Duration> {
        let left = lock(&self.down).saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

/// The path below `owner/name/`.
fn in_repository(file: &str) -> &str {
    file.splitn(3, '/').nth(2).unwrap_or(file)
}
