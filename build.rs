//! Puts the playground's page into the binary.
//!
//! `npm run build` in `src/playground` leaves the page in `src/playground/dist`. Cargo never runs npm: whoever has no
//! Node.js builds the same server, with a page in the playground's place that says how to get it.

#![allow(clippy::disallowed_methods)] // a build script reads its environment

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const FOLDER: &str = "src/playground";

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
    let out = Path::new(&variable("OUT_DIR")?).join("playground.rs");
    fs::write(&out, generate(bundled, &assets)?)
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
