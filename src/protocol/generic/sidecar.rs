//! Files that say what the file next to them hashes to, in the forms that `sha256sum`, `shasum --tag` and
//! `sha512sum` write, or bare.

use crate::model::Checksum;

/// The most lines that are looked at.
const MAX_LINES: usize = 4096;

/// The checksum of the file at `path`: the line that names it, or the only one there is. `None` if the
/// text has none; such a file is none to check by.
pub(super) fn checksum(text: &[u8], path: &str) -> Option<Checksum> {
    let text = std::str::from_utf8(text).ok()?;
    let name = path.rsplit('/').next()?;
    let claims: Vec<(Option<&str>, Checksum)> =
        text.lines().take(MAX_LINES).filter_map(|line| claim(line.trim())).collect();
    let named = claims.iter().find(|(file, _)| file.is_some_and(|file| is_of(file, name)));
    match (named, claims.as_slice()) {
        (Some((_, checksum)), _) | (None, [(_, checksum)]) => Some(checksum.clone()),
        (None, _) => None,
    }
}

/// The file that a line names, and its checksum.
fn claim(line: &str) -> Option<(Option<&str>, Checksum)> {
    // `SHA256 (file) = hex`
    if let Some((before, hex)) = line.rsplit_once(" = ") {
        let (_, file) = before.split_once(" (")?;
        return Some((Some(file.strip_suffix(')')?), of_hex(hex.trim())?));
    }
    // `hex  file`, `hex *file`, or `hex`
    let (hex, file) = line.split_once([' ', '\t']).map_or((line, None), |(hex, file)| (hex, Some(file)));
    let file = file.map(|file| file.trim().trim_start_matches('*')).filter(|file| !file.is_empty());
    Some((file, of_hex(hex)?))
}

fn of_hex(hex: &str) -> Option<Checksum> {
    let algorithm = match hex.len() {
        64 => "sha256",
        128 => "sha512",
        _ => return None,
    };
    format!("{algorithm}:{}", hex.to_ascii_lowercase()).parse().ok()
}

fn is_of(file: &str, name: &str) -> bool {
    file.rsplit('/').next() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_form_is_read() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let long = "c".repeat(128);
        for (text, expected) in [
            (a.clone(), Some(format!("sha256:{a}"))),
            (format!("{a}\n"), Some(format!("sha256:{a}"))),
            (a.to_uppercase(), Some(format!("sha256:{a}"))),
            (format!("{a}  x.zip\n{b}  y.zip\n"), Some(format!("sha256:{a}"))),
            (format!("{b}  y.zip\r\n{a} *./dir/x.zip\r\n"), Some(format!("sha256:{a}"))),
            (format!("SHA256 (x.zip) = {a}\nSHA256 (y.zip) = {b}\n"), Some(format!("sha256:{a}"))),
            (long.clone(), Some(format!("sha512:{long}"))),
            (format!("{b}  built-as-other-name.zip\n"), Some(format!("sha256:{b}"))),
            (format!("{b}  y.zip\n{a}  z.zip\n"), None),
            ("<html>not here</html>".to_owned(), None),
            ("d41d8cd98f00b204e9800998ecf8427e  x.zip".to_owned(), None),
            (String::new(), None),
        ] {
            let found = checksum(text.as_bytes(), "/dir/x.zip").map(|checksum| checksum.to_string());
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(checksum(&[0xff, 0xfe], "/x"), None);
    }
}
