//! A Vulkan driver for the native tests of the kernels: any will do, also one that the CPU plays.

use std::path::Path;
use std::{env, fs};

use crate::browser::{apt, can_apt};
use crate::process::Result;

/// Where drivers announce themselves on Linux.
const PLACES: &[&str] =
    &["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// What else names drivers.
const VARIABLES: &[&str] = &["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"];

const PACKAGE: &str = "mesa-vulkan-drivers";

/// Installs a driver where there is none. Windows and macOS bring their own.
pub fn set_up() -> Result {
    if !cfg!(target_os = "linux") || is_there() {
        return Ok(());
    }
    let advice = format!(
        "install your GPU's, or Mesa's, which needs no GPU: the package {PACKAGE} of Debian and \
         Ubuntu, vulkan-swrast of Arch, mesa-vulkan-drivers of Fedora"
    );
    if !can_apt() {
        return Err(format!("no Vulkan driver was found: {advice}").into());
    }
    println!("installing {PACKAGE}");
    let failed = |error| format!("{error}\nNo Vulkan driver could be installed: {advice}");
    apt(&["update"]).map_err(failed)?;
    apt(&["install", "-y", PACKAGE]).map_err(failed)?;
    if is_there() { Ok(()) } else { Err(format!("{PACKAGE} brought no driver: {advice}").into()) }
}

fn is_there() -> bool {
    VARIABLES.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
        || PLACES.iter().any(|place| has_driver(Path::new(place)))
}

fn has_driver(place: &Path) -> bool {
    let Ok(entries) = fs::read_dir(place) else { return false };
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.any(|path| path.extension().is_some_and(|end| end == "json"))
}

#[cfg(test)]
mod tests {
    use super::has_driver;
    use crate::files::tests::Scratch;

    #[test]
    fn a_driver_is_a_json_file() {
        let scratch = Scratch::new().with("some/readme", b"").with("with/lvp_icd.json", b"{}");
        assert!(has_driver(&scratch.path().join("with")));
        assert!(!has_driver(&scratch.path().join("some")));
        assert!(!has_driver(&scratch.path().join("absent")));
    }
}
