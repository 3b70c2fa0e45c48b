//! The cipher of a unit's own tokens and cookies: AES in CBC mode under the unit's secret, as text in base64url.
//!
//! The format has no authentication code: whoever reads what it protects has to be strict.

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use cbc::{Decryptor, Encryptor};
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};

/// An initialisation vector.
pub(crate) type Iv = [u8; 16];

/// What versions of old put before an issuer when it is too short for an initialisation vector.
const PAD: &str = "123456789abcdefg";

/// The secret of a unit (its setting `security.secret16`): the bytes of the text are the key.
#[derive(Debug, Clone)]
pub(crate) struct Key(SecretString);

impl Key {
    /// Takes 16 bytes (AES-128), 24 (AES-192) or 32 (AES-256).
    pub(crate) fn new(secret: SecretString) -> Option<Self> {
        matches!(secret.expose_secret().len(), 16 | 24 | 32).then(|| Self(secret))
    }

    /// Encrypts to text.
    pub(crate) fn encrypt(&self, iv: &Iv, plain: &[u8]) -> String {
        let key = self.0.expose_secret().as_bytes();
        let bytes = match key.len() {
            32 => Encryptor::<Aes256>::new_from_slices(key, iv).map(|c| c.encrypt_padded_vec::<Pkcs7>(plain)),
            24 => Encryptor::<Aes192>::new_from_slices(key, iv).map(|c| c.encrypt_padded_vec::<Pkcs7>(plain)),
            _ => Encryptor::<Aes128>::new_from_slices(key, iv).map(|c| c.encrypt_padded_vec::<Pkcs7>(plain)),
        };
        URL_SAFE_NO_PAD.encode(bytes.expect("new() has looked at the length"))
    }

    /// Decrypts text to text. Nothing, without saying why, when it is none that this key wrote.
    pub(crate) fn decrypt(&self, iv: &Iv, text: &str) -> Option<String> {
        String::from_utf8(self.decrypt_bytes(iv, text)?).ok()
    }

    /// What can be read without the vector: everything but the first block.
    pub(crate) fn decrypt_tail(&self, text: &str) -> Option<String> {
        let plain = self.decrypt_bytes(&[0; 16], text)?;
        Some(String::from_utf8_lossy(plain.get(16..)?).into_owned())
    }

    fn decrypt_bytes(&self, iv: &Iv, text: &str) -> Option<Vec<u8>> {
        let (key, bytes) = (self.0.expose_secret().as_bytes(), decode(text)?);
        match key.len() {
            32 => Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(&bytes).ok(),
            24 => Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(&bytes).ok(),
            _ => Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(&bytes).ok(),
        }
    }
}

/// Reads base64 in both alphabets, with padding or without, as units do. Other characters, and bits that mean nothing,
/// are refused: no two texts are the same token.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let url_safe = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(url_safe).ok()
}

/// The vector of a token (since version 1.7.21 of the unit's core).
pub(crate) fn iv(issuer: &str) -> Iv {
    Md5::digest(issuer).into()
}

/// The vector of a token before that: the end of the issuer, backwards.
pub(crate) fn iv_of_old(issuer: &str) -> Iv {
    let mut iv = [0; 16];
    let bytes = issuer.bytes().rev().chain(PAD.bytes().rev());
    iv.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    iv
}

/// The vector of a unit user's token before that: the beginning of the issuer.
pub(crate) fn iv_of_old_unit_users(issuer: &str) -> Iv {
    let mut iv = [0; 16];
    iv.iter_mut().zip(issuer.bytes().chain(PAD.bytes())).for_each(|(to, from)| *to = from);
    iv
}

/// The vector of a cookie.
pub(crate) fn iv_of_cookie(host: &str) -> Iv {
    iv(&host.replace(['a', 'i', 'u', 'e', 'o'], "#"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_those_of_units() {
        let cell = "https://cell1.unit1.example/";
        assert_eq!(hex::encode(iv(cell)), "71e6642a6f50852f31cd9c4f01db1729");
        assert_eq!(hex::encode(iv("https://unit1.example/")), "73ebd26d43b38d240541d577aeded6ae");
        assert_eq!(&iv_of_old(cell), b"/elpmaxe.1tinu.1");
        assert_eq!(&iv_of_old("ab/"), b"/bagfedcba987654");
        assert_eq!(&iv_of_old_unit_users("unit1.example"), b"unit1.example123");
        assert_eq!(hex::encode(iv_of_cookie("cell1.unit1.example")), "529ea8c5d30e89e9ea40dc08d47d6d63");
    }

    #[test]
    fn keys_have_three_lengths() {
        for length in [16, 24, 32] {
            let key = Key::new("k".repeat(length).into()).expect("a length of AES");
            let text = key.encrypt(&[7; 16], "こんにちは".as_bytes());
            assert_eq!(key.decrypt(&[7; 16], &text).as_deref(), Some("こんにちは"));
            assert_eq!(key.decrypt(&[8; 16], &text), None);
        }
        assert!(Key::new("k".repeat(17).into()).is_none());
    }

    #[test]
    fn one_token_has_one_text() {
        assert_eq!(decode("_-8"), Some(vec![0xff, 0xef]));
        assert_eq!(decode("/+8="), Some(vec![0xff, 0xef]));
        for other in ["_-9", "_-8 ", "_-!8", "_-8\n", "_"] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }
}
