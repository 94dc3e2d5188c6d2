//! The style sheet, the script and the icon: in the binary, as `build.rs` found them. Bundled by npm they are small and
//! named after their content; without npm they are the sources themselves.

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/web_assets.rs"));
}

/// Where a source file is served. An unknown name is a mistake of ours, and gives an address that has nothing.
pub(super) fn address(source: &str) -> &'static str {
    let found = generated::WEB_ASSETS.iter().find(|(name, ..)| *name == source);
    found.map_or("/assets/missing", |(_, address, ..)| address)
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let found = generated::WEB_ASSETS
        .iter()
        .find(|(_, address, ..)| address.strip_prefix("/assets/") == Some(name.as_str()));
    let Some((_, _, content_type, bytes)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let caching = if generated::WEB_BUNDLED { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = (*bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_pages_name_is_there() {
        for source in ["style.css", "app.js", "icon.svg", "usage.css", "usage.js"] {
            assert!(
                address(source).starts_with("/assets/") && address(source) != "/assets/missing",
                "{source}"
            );
        }
    }
}
