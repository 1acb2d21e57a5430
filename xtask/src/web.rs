//! `cargo xtask demo`, `cargo xtask serve` and `cargo xtask hub`.

use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::process::{self, Result};
use crate::server::hub::{HubServer, MAIN};
use crate::server::{Mount, Server};
use crate::{files, package};

/// The first port to try.
const PORT: u16 = 8080;
/// The same for the stand-in for the Hub.
const HUB_PORT: u16 = 8090;

/// `cargo xtask demo [--port N] [--no-build] [--dev]`.
pub fn demo(mut args: Args) -> Result<u8> {
    let port = args.port(PORT)?;
    let (build, dev) = (!args.flag("--no-build"), args.flag("--dev"));
    args.none()?;
    if build {
        package::build(dev)?;
    }
    let mounts =
        vec![Mount::new("/", process::root().join("www"))?, Mount::new("/pkg", package::folder())?];
    listen(mounts, port)
}

/// `cargo xtask serve DIR [--port N] [--mount /NAME=DIR]...`.
pub fn serve(mut args: Args) -> Result<u8> {
    let port = args.port(PORT)?;
    let mounted = args.values("--mount")?;
    let mut mounts = vec![Mount::new("/", args.one("folder to serve")?.into())?];
    for mount in mounted {
        let (name, folder) = mount
            .split_once('=')
            .ok_or_else(|| format!("--mount {mount}: write --mount /NAME=DIR"))?;
        mounts.push(Mount::new(name, PathBuf::from(folder))?);
    }
    listen(mounts, port)
}

fn listen(mounts: Vec<Mount>, port: u16) -> Result<u8> {
    let server = Server::bind(mounts, port)?;
    println!("http://{}/", server.address());
    server.run()
}

/// `cargo xtask hub [DIR] [--repo ID[@REV]=DIR]... [--port N]`.
pub fn hub(mut args: Args) -> Result<u8> {
    let port = args.port(HUB_PORT)?;
    let repositories = args.values("--repo")?;
    let server = HubServer::bind(port)?;
    if let Some(folder) = args.at_most_one("folder of models")? {
        let folder = Path::new(&folder);
        for owner in files::names(folder)?.iter().filter(|name| folder.join(name).is_dir()) {
            for name in files::names(&folder.join(owner))? {
                let place = owner.join(&name);
                let id = format!("{}/{}", owner.display(), name.display());
                if folder.join(&place).is_dir() {
                    server.publish(&id, MAIN, &folder.join(&place))?;
                }
            }
        }
    }
    for repository in repositories {
        let (id, folder) = repository
            .split_once('=')
            .ok_or_else(|| format!("--repo {repository}: write --repo OWNER/NAME=DIR"))?;
        let (id, revision) = id.split_once('@').unwrap_or((id, MAIN));
        server.publish(id, revision, Path::new(folder))?;
    }
    println!("{}", server.description());
    server.run()
}
