//! The playground's page: files that `wiresocket dev` and the dashboard serve below `/playground`.
//!
//! The bytes are in the binary: `build.rs` takes what `npm run build` left in `dist/`, or, where npm was missing, one
//! page that says so. Which of the two is known only to [`is_bundled`].
//!
//! Deliberately absent: routes and `config.json`, which belong to whoever serves the page.

/// One file of the page, ready to be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    content_type: &'static str,
    /// The body.
    pub bytes: &'static [u8],
    cache_control: &'static str,
}

impl Asset {
    /// What it is answered with, whoever answers.
    #[must_use]
    pub const fn headers(&self) -> [(&'static str, &'static str); 4] {
        [
            ("content-type", self.content_type),
            ("cache-control", self.cache_control),
            ("content-security-policy", CONTENT_SECURITY_POLICY),
            ("x-content-type-options", "nosniff"),
        ]
    }
}

/// What the page may do: it loads nothing from anywhere but its own origin, and talks to sockets.
///
/// The editor inserts its style sheet from script, hence the inline styles.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A name with the hash of its content in it never means anything else.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// The index names the current hashes: it is asked for each time.
const EACH_TIME: &str = "no-cache";

mod generated {
    include!(concat!(env!("OUT_DIR"), "/playground.rs"));
}

/// The file at `path`, which is the request's path below `/playground`: `""` or `"/"` is the page itself.
///
/// Only names of the fixed list are found; a path is never taken apart, so there is nothing to escape from.
#[must_use]
pub fn asset(path: &str) -> Option<Asset> {
    find(generated::ASSETS, path)
}

/// Whether this build holds the real page, rather than the one that says how to get it.
#[must_use]
pub fn is_bundled() -> bool {
    generated::BUNDLED
}

fn find(assets: &[(&str, &'static str, &'static [u8])], path: &str) -> Option<Asset> {
    let name = path.strip_prefix('/').unwrap_or(path);
    let (_, content_type, bytes) = assets.iter().find(|(asset, ..)| *asset == name)?;
    Some(Asset { content_type, bytes, cache_control: if is_hashed(name) { FOR_EVER } else { EACH_TIME } })
}

/// Whether `name` is `<stem>-<eight of A-Z 0-9>.<extension>`, as the bundler names its output.
fn is_hashed(name: &str) -> bool {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    stem.rsplit_once('-').is_some_and(|(_, hash)| {
        hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[(&str, &str, &[u8])] = &[
        ("", "text/html; charset=utf-8", b"<!doctype html>"),
        ("main-RFVOT3L2.js", "text/javascript; charset=utf-8", b"export {}"),
        ("read-me.txt", "text/plain; charset=utf-8", b"no hash in the name"),
    ];

    #[test]
    fn the_empty_path_and_a_slash_are_the_page() {
        let page = find(SAMPLE, "").expect("the page");
        assert_eq!(page.bytes, b"<!doctype html>");
        assert_eq!(find(SAMPLE, "/"), Some(page));
    }

    #[test]
    fn a_file_is_found_with_and_without_the_leading_slash() {
        let script = find(SAMPLE, "main-RFVOT3L2.js").expect("the script");
        assert_eq!(script.content_type, "text/javascript; charset=utf-8");
        assert_eq!(find(SAMPLE, "/main-RFVOT3L2.js"), Some(script));
    }

    #[test]
    fn only_names_that_carry_their_hash_are_kept_for_ever() {
        let cache_control = |path| find(SAMPLE, path).map(|asset| asset.cache_control);
        assert_eq!(cache_control("main-RFVOT3L2.js"), Some(FOR_EVER));
        assert_eq!(cache_control(""), Some(EACH_TIME));
        assert_eq!(cache_control("read-me.txt"), Some(EACH_TIME));
    }

    #[test]
    fn what_is_not_in_the_list_is_not_found() {
        for path in ["main-RFVOT3L2.js.map", "//", "../mod.rs", "/etc/passwd", "index.html", "config.json"] {
            assert_eq!(find(SAMPLE, path), None, "{path}");
        }
    }

    #[test]
    fn this_build_has_a_page_and_every_file_that_the_page_names() {
        let page = asset("").expect("a page, bundled or not");
        assert_eq!(page.content_type, "text/html; charset=utf-8");
        let html = std::str::from_utf8(page.bytes).expect("UTF-8");
        let named: Vec<&str> =
            html.split("=\"/playground/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for name in &named {
            assert!(asset(name).is_some(), "the page names {name}");
        }
        assert_eq!(is_bundled(), !named.is_empty(), "only the real page has files");
    }
}
