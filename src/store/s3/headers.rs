//! Metadata as headers and back.
//!
//! Invariant: what is put is what HEAD answers. A header holds ASCII without blanks at its ends, so
//! a value that is anything else travels as RFC 2047 encoded words, which is also what S3 answers
//! for a stranger's non-ASCII value; what cannot be decoded is kept raw.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_s3::types::ServerSideEncryption;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

use crate::types::{Headers, Sse};

/// Puts `$headers` on a PutObject, CreateMultipartUpload or CopyObject.
macro_rules! described {
    ($request:expr, $headers:expr) => {{
        let headers: &$crate::types::Headers = $headers;
        let (sse, kms_key) = $crate::store::s3::headers::sse(headers);
        $request
            .set_content_type(headers.content_type.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_storage_class(headers.storage_class.as_deref().map(Into::into))
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(kms_key)
            .set_metadata($crate::store::s3::headers::encoded(&headers.metadata))
    }};
}
pub(super) use described;

/// Reads the headers of a HeadObject's or GetObject's answer.
macro_rules! headers_of {
    ($output:expr) => {{
        let output = &$output;
        let text = |text: Option<&str>| text.map(str::to_owned);
        $crate::types::Headers {
            content_type: text(output.content_type()),
            cache_control: text(output.cache_control()),
            content_disposition: text(output.content_disposition()),
            content_encoding: text(output.content_encoding()),
            content_language: text(output.content_language()),
            storage_class: text(output.storage_class().map(|class| class.as_str()))
                .filter(|class| class != "STANDARD"),
            sse: $crate::store::s3::headers::sse_of(
                output.server_side_encryption(),
                output.ssekms_key_id(),
            ),
            metadata: $crate::store::s3::headers::decoded(output.metadata()),
        }
    }};
}
pub(super) use headers_of;

pub(super) fn sse(headers: &Headers) -> (Option<ServerSideEncryption>, Option<String>) {
    match &headers.sse {
        None => (None, None),
        Some(Sse::S3) => (Some(ServerSideEncryption::Aes256), None),
        Some(Sse::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
    }
}

pub(super) fn sse_of(kind: Option<&ServerSideEncryption>, key: Option<&str>) -> Option<Sse> {
    match kind? {
        ServerSideEncryption::Aes256 => Some(Sse::S3),
        ServerSideEncryption::AwsKms => Some(Sse::Kms(key.map(str::to_owned))),
        _ => None,
    }
}

pub(super) fn encoded(metadata: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    let encoded = metadata
        .iter()
        .map(|(name, value)| (name.clone(), encode(value)));
    (!metadata.is_empty()).then(|| encoded.collect())
}

pub(super) fn decoded(metadata: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    let metadata = metadata.into_iter().flatten();
    metadata
        .map(|(name, value)| (name.to_ascii_lowercase(), decode(value)))
        .collect()
}

/// The most bytes of text in an encoded word of at most 75 characters.
const WORD: usize = 45;

fn encode(value: &str) -> String {
    let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if plain && value.trim() == value && !value.contains("=?") {
        return value.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for letter in value.chars() {
        if word.len() + letter.len_utf8() > WORD {
            words.push(std::mem::take(&mut word));
        }
        word.push(letter);
    }
    words.push(word);
    let words = words.iter().map(|word| BASE64_STANDARD.encode(word));
    let words: Vec<String> = words.map(|word| format!("=?UTF-8?B?{word}?=")).collect();
    words.join(" ")
}

fn decode(raw: &str) -> String {
    if !raw.contains("=?") {
        return raw.to_owned();
    }
    // Bytes, as a character may be split between two words.
    let mut text: Vec<u8> = Vec::new();
    let mut after_word = false;
    for (at, token) in raw.split(' ').enumerate() {
        let word = decode_word(token);
        let joined = after_word && word.is_some();
        if at > 0 && !joined {
            text.push(b' ');
        }
        after_word = word.is_some();
        text.extend(word.unwrap_or_else(|| token.as_bytes().to_vec()));
    }
    String::from_utf8(text).unwrap_or_else(|_| raw.to_owned())
}

/// `=?charset?B|Q?text?=` as bytes of UTF-8.
fn decode_word(token: &str) -> Option<Vec<u8>> {
    let inner = token.strip_prefix("=?")?.strip_suffix("?=")?;
    let mut fields = inner.splitn(3, '?');
    let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    let bytes = match encoding {
        "B" | "b" => BASE64_STANDARD_NO_PAD
            .decode(text.trim_end_matches('='))
            .ok()?,
        "Q" | "q" => percent_encoding::percent_decode_str(
            &text.replace('%', "=25").replace('_', " ").replace('=', "%"),
        )
        .collect(),
        _ => return None,
    };
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => Some(bytes),
        "iso-8859-1" => {
            let latin = bytes.iter().map(|byte| char::from(*byte));
            Some(latin.collect::<String>().into_bytes())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_values_travel_as_they_are() {
        for value in [
            "",
            "33188",
            "a  b",
            "text/plain; charset=utf-8",
            "100%_=sure?",
        ] {
            assert_eq!(encode(value), value);
            assert_eq!(decode(value), value);
        }
    }

    #[test]
    fn words_of_strangers_are_decoded_and_unknown_ones_kept() {
        assert_eq!(decode("=?UTF-8?B?5pel5pys?="), "日本");
        assert_eq!(
            decode("=?utf-8?q?caf=C3=A9_au_lait_5%?="),
            "café au lait 5%"
        );
        assert_eq!(decode("=?ISO-8859-1?Q?caf=E9?="), "café");
        assert_eq!(decode("=?UTF-8?Q?=E6=97?= =?UTF-8?Q?=A5?= x"), "日 x");
        for raw in [
            "=?x-klingon?B?AAAA?=",
            "=?UTF-8?B?!!?=",
            "=?",
            "=?UTF-8?B?/w==?=",
        ] {
            assert_eq!(decode(raw), raw);
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in any::<String>()) {
            let header = encode(&value);
            prop_assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(header.trim(), &header);
            prop_assert_eq!(decode(&header), value);
        }
    }
}
