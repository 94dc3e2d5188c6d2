//! Puts the playground's page and the dashboard's style sheet and script into the binary.
//!
//! `npm run build` in `src/playground` leaves the page in `src/playground/dist`, and in `src/dashboard/web` what pages
//! load in `dist` there. Cargo never runs npm: whoever has no Node.js builds the same server, with a page in the
//! playground's place that says how to get it, and the dashboard's files as they are in the sources.

#![allow(clippy::disallowed_methods)] // a build script reads its environment

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const FOLDER: &str = "src/playground";
const WEB_FOLDER: &str = "src/dashboard/web";
const WEB_ASSETS: [&str; 5] = ["style.css", "app.js", "icon.svg", "usage.css", "usage.js"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let folder = root.join(FOLDER);
    let dist = folder.join("dist");
    let unbundled = folder.join("web/unbundled.html");

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", unbundled.display());
    // The bundler writes the index last: without it, dist is missing or half made.
    let bundled = dist.join("index.html").is_file();
    if bundled {
        println!("cargo::rerun-if-changed={}", dist.display());
    } else {
        // A path that doesn't exist would make every build start anew; the folder around it changes when dist appears.
        println!("cargo::rerun-if-changed={}", folder.display());
    }

    let assets = if bundled { bundle(&dist)? } else { vec![(String::new(), unbundled)] };
    let out = PathBuf::from(variable("OUT_DIR")?);
    fs::write(out.join("playground.rs"), generate(bundled, &assets)?)?;
    fs::write(out.join("web_assets.rs"), web_assets(&root.join(WEB_FOLDER))?)
}

/// The dashboard's assets: source name, address, content type, content. The bundler leaves one folder per source file,
/// and `complete` when it is done.
fn web_assets(folder: &Path) -> io::Result<String> {
    let (sources, dist) = (folder.join("assets"), folder.join("dist"));
    let bundled = dist.join("complete").is_file();
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed={}", if bundled { dist.display() } else { folder.display() });
    let mut code = format!(
        "pub static WEB_BUNDLED: bool = {bundled};\n\
         pub static WEB_ASSETS: &[(&str, &str, &str, &[u8])] = &[\n"
    );
    for source in WEB_ASSETS {
        let path = if bundled { only_file(&dist.join(source))? } else { sources.join(source) };
        let served = path.file_name().and_then(|name| name.to_str()).unwrap_or(source);
        let (address, content_type) = (format!("/assets/{served}"), content_type(&path)?);
        writeln!(code, "    ({source:?}, {address:?}, {content_type:?}, include_bytes!({path:?})),")
            .map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    Ok(code)
}

fn only_file(folder: &Path) -> io::Result<PathBuf> {
    let entry = fs::read_dir(folder)?.next().transpose()?;
    entry.map(|entry| entry.path()).ok_or_else(|| io::Error::other(format!("{} is empty", folder.display())))
}

/// Every file of the bundle with its name below `/playground/`, the index under the empty name, in a stable order.
fn bundle(dist: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut assets = Vec::new();
    for entry in fs::read_dir(dist)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|_| path.is_file()) else {
            return Err(io::Error::other(format!(
                "{} is not a plain file: remove {} and run `make playground`",
                path.display(),
                dist.display()
            )));
        };
        let name = if name == "index.html" { "" } else { name };
        assets.push((name.to_owned(), path));
    }
    assets.sort();
    Ok(assets)
}

fn generate(bundled: bool, assets: &[(String, PathBuf)]) -> io::Result<String> {
    let mut code = format!(
        "/// Whether ASSETS is the real page.\n\
         pub static BUNDLED: bool = {bundled};\n\
         /// Name below /playground/, content type, content.\n\
         pub static ASSETS: &[(&str, &str, &[u8])] = &[\n"
    );
    for (name, path) in assets {
        let content_type = content_type(path)?;
        writeln!(code, "    ({name:?}, {content_type:?}, include_bytes!({path:?})),")
            .map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    Ok(code)
}

fn content_type(path: &Path) -> io::Result<&'static str> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => Ok("text/html; charset=utf-8"),
        Some("js") => Ok("text/javascript; charset=utf-8"),
        Some("css") => Ok("text/css; charset=utf-8"),
        Some("svg") => Ok("image/svg+xml"),
        _ => Err(io::Error::other(format!(
            "{} is of a kind that build.rs knows no content type for: add it there",
            path.display()
        ))),
    }
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("cargo sets {name}, but: {error}")))
}
