//! The project's commands: `cargo xtask help` lists them.

mod args;
mod bench;
mod browser;
mod docs;
mod files;
mod gate;
mod hub_client;
mod licences;
mod package;
mod parity;
mod process;
mod record;
mod scripts;
mod server;
mod vulkan;
mod wasm_opt;
mod web;

use std::process::ExitCode;

use args::Args;
use process::Result;

/// One `cargo xtask NAME`. `run` returns the exit code, so that a child's can be passed on.
struct Subcommand {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(Args) -> Result<u8>,
}

const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "demo",
        usage: "[--port N] [--no-build] [--dev]",
        about: "package, then serve the demo page on loopback (port 8080, else the next free one)",
        run: web::demo,
    },
    Subcommand {
        name: "test",
        usage: "[--full]",
        about: "the gate: native tests, package, browser tests and parity; --full runs every proof",
        run: gate::run,
    },
    Subcommand {
        name: "package",
        usage: "[--dev]",
        about: "build the npm package in pkg/; --dev leaves wasm-opt out",
        run: package::run,
    },
    Subcommand {
        name: "docs",
        usage: "",
        about: "make the pages of the package's API (typedoc) and of the crate (rustdoc)",
        run: docs::run,
    },
    Subcommand {
        name: "parity",
        usage: "DIR [--browser [--no-build]] [--only NAME]...",
        about: "compare with the reference cases of DIR, natively or in headless Chromium",
        run: parity::run,
    },
    Subcommand {
        name: "bench",
        usage: "[--browser [--software]] [--f16] [--weights TYPE] [--only NAME] [--json FILE]",
        about: "time kernels and whole models on this machine's GPU, natively or in Chromium",
        run: bench::run,
    },
    Subcommand {
        name: "serve",
        usage: "DIR [--port N] [--mount /NAME=DIR]... [--policy]",
        about: "serve any folder on loopback (port 0: any free one); prints the address first",
        run: web::serve,
    },
    Subcommand {
        name: "hub",
        usage: "[DIR] [--port N] [--repo OWNER/NAME[@REVISION]=DIR]...",
        about: "serve DIR/OWNER/NAME as the Hub would, with faults; prints the addresses as JSON",
        run: web::hub,
    },
];

fn main() -> ExitCode {
    process::remember_this_executable();
    match dispatch() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<u8> {
    let mut args = Args::from_env()?;
    let Some(name) = args.subcommand() else {
        print!("{}", help());
        return Ok(0);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", help());
        return Ok(0);
    }
    let Some(subcommand) = SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name) else {
        return Err(format!("there is no command {name:?}\n\n{}", help()).into());
    };
    if args.flag("--help") || args.flag("-h") {
        println!("cargo xtask {name} {}\n    {}", subcommand.usage, subcommand.about);
        return Ok(0);
    }
    (subcommand.run)(args)
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND\n\n");
    for Subcommand { name, usage, about, .. } in SUBCOMMANDS {
        text += &format!("    {name:<8} {about}\n             {name} {usage}\n");
    }
    text += &format!("    {:<8} this list\n", "help");
    text
}
