//! A directory as a page of links.

use super::path;
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use std::fmt::Write;
use std::os::fd::OwnedFd;

/// A page with more links than this serves nobody.
const LIMIT: usize = 10_000;

/// The page for the directory at `path` (relative to the root, decoded). Names that begin with a dot are left out.
pub(super) fn page(path: &[u8], directory: OwnedFd) -> Result<String, Errno> {
    let mut names = Vec::new();
    let mut is_cut = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.first() == Some(&b'.') {
            continue;
        }
        if names.len() == LIMIT {
            is_cut = true;
            break;
        }
        names.push((entry.file_type() != FileType::Directory, name.to_vec()));
    }
    // Directories first.
    names.sort_unstable();
    Ok(render(path, &names, is_cut))
}

fn render(path: &[u8], names: &[(bool, Vec<u8>)], is_cut: bool) -> String {
    let title = format!("/{}", escape(path));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font-family:monospace;line-height:1.6;margin:2em}}</style>\n<h1>{title}</h1>\n<ul>\n"
    );
    if !path.is_empty() {
        html.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (is_other, name) in names {
        let slash = if *is_other { "" } else { "/" };
        // "./" so that a name with a colon is no URL scheme. Writing to a String does not fail.
        let _ =
            writeln!(html, "<li><a href=\"./{}{slash}\">{}{slash}</a>", path::to_link(name), escape(name));
    }
    html.push_str("</ul>\n");
    if is_cut {
        let _ = writeln!(html, "<p>There are more; only {LIMIT} are listed.");
    }
    html
}

/// A name as text. What is not UTF-8, and what would change the direction or look of the text around it, is
/// replaced.
fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for character in String::from_utf8_lossy(name).chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            character if character.is_control() => text.push(char::REPLACEMENT_CHARACTER),
            character => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_never_markup() {
        let names = [
            (false, b"dir".to_vec()),
            (true, b"<script>alert(1)</script>".to_vec()),
            (true, b"\" onmouseover=\"x".to_vec()),
            (true, b"javascript:alert(1)".to_vec()),
            (true, b"line\nbreak\xff".to_vec()),
            (true, "evil\u{202e}txt.exe".as_bytes().to_vec()),
        ];
        let html = render(b"a&b", &names, false);
        assert!(html.contains("<h1>/a&amp;b</h1>"));
        assert!(html.contains("<li><a href=\"./dir/\">dir/</a>"));
        assert!(html.contains(">&lt;script&gt;alert(1)&lt;/script&gt;</a>"));
        assert!(html.contains("href=\"./%22%20onmouseover=%22x\">&quot; onmouseover=&quot;x<"));
        assert!(html.contains("href=\"./javascript%3Aalert(1)\""));
        assert!(html.contains("href=\"./line%0Abreak%FF\">line\u{fffd}break\u{fffd}<"));
        assert!(!html.contains("<script") && !html.contains('\u{202e}'));
    }
}
