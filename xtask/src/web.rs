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
    listen(mounts, port, Some(policy(&process::root().join("www"))?))
}

/// `cargo xtask serve DIR [--port N] [--mount /NAME=DIR]... [--policy]`.
pub fn serve(mut args: Args) -> Result<u8> {
    let port = args.port(PORT)?;
    let mounted = args.values("--mount")?;
    let with_policy = args.flag("--policy");
    let folder = PathBuf::from(args.one("folder to serve")?);
    let policy = with_policy.then(|| policy(&folder)).transpose()?;
    let mut mounts = vec![Mount::new("/", folder)?];
    for mount in mounted {
        let (name, folder) = mount
            .split_once('=')
            .ok_or_else(|| format!("--mount {mount}: write --mount /NAME=DIR"))?;
        mounts.push(Mount::new(name, PathBuf::from(folder))?);
    }
    listen(mounts, port, policy)
}

/// The policy that a folder's page has in itself, with what only a header can say.
fn policy(folder: &Path) -> Result<String> {
    const META: &str = "http-equiv=\"Content-Security-Policy\" content=\"";
    let path = folder.join("index.html");
    let page = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let found = page.split_once(META).and_then(|(_, rest)| rest.split_once('"'));
    let (policy, _) = found.ok_or_else(|| format!("{} has no policy", path.display()))?;
    Ok(format!("{policy}; frame-ancestors 'none'"))
}

fn listen(mounts: Vec<Mount>, port: u16, policy: Option<String>) -> Result<u8> {
    let mut server = Server::bind(mounts, port)?;
    if let Some(policy) = policy {
        server = server.with_policy(&policy);
    }
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

#[cfg(test)]
mod tests {
    use super::policy;
    use crate::files::tests::Scratch;
    use crate::process;

    #[test]
    fn the_policy_is_the_page_s_own_and_forbids_frames() {
        let found = policy(&process::root().join("www")).expect("a policy");
        assert!(found.starts_with("default-src 'none'; script-src 'self' "), "{found}");
        assert!(found.ends_with("; frame-ancestors 'none'"), "{found}");
        let none = Scratch::new().with("index.html", b"<p>home</p>");
        assert!(policy(none.path()).is_err());
        assert!(policy(&none.path().join("absent")).is_err());
    }
}
