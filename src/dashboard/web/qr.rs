//! QR codes as inline SVG, made here: the secret in one must not be sent to anybody who draws it.

use std::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};

/// Modules of quiet zone around the code, which scanners need.
const MARGIN: i32 = 4;

/// An `<svg>` element; `None` if the text is too long for any code. Black on white in every theme: that is what scans.
pub(super) fn svg(text: &str, label: &str) -> Option<String> {
    debug_assert!(!label.contains(['"', '<', '&']));
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let (size, side) = (code.size(), code.size() + 2 * MARGIN);
    let mut path = String::new();
    for y in 0..size {
        for x in (0..size).filter(|&x| code.get_module(x, y)) {
            let _ = write!(path, "M{} {}h1v1h-1z", x + MARGIN, y + MARGIN);
        }
    }
    Some(format!(
        "<svg class=\"qr\" role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_black_on_white_with_a_quiet_zone() {
        let svg = svg("otpauth://totp/x", "QR code").unwrap();
        assert!(
            svg.starts_with("<svg") && svg.contains("fill=\"#fff\"") && svg.contains("M4 4h1v1"),
            "{svg}"
        );
        assert_eq!(super::svg(&"x".repeat(5000), "QR code"), None);
    }
}
