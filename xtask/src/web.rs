//! `cargo xtask demo` and `cargo xtask serve`.

use std::path::PathBuf;

use crate::args::Args;
use crate::package;
use crate::process::{self, Result};
use crate::server::{Mount, Server};

/// The first port to try.
const PORT: u16 = 8080;

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
