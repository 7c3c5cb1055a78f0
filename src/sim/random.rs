//! Names that nobody else has: ids, keys, tokens.

use std::fs::File;
use std::io;
use std::io::Read as _;

use super::checks::hex;

/// `N` random bytes, of the kernel.
fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// `len` letters and digits.
pub(super) fn text(len: usize) -> io::Result<String> {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AZ";
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let signs = bytes::<64>()?;
        text.extend(
            signs
                .iter()
                .map(|byte| char::from(SIGNS[usize::from(byte % 64)])),
        );
    }
    text.truncate(len);
    Ok(text)
}

/// Eight hexadecimal digits, four, four, four, twelve.
pub(super) fn uuid() -> io::Result<String> {
    let digits = hex(&bytes::<16>()?);
    let parts = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    Ok(parts.join("-"))
}
