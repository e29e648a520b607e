//! The dashboard: plain HTML, CSS and JavaScript, in the binary as they are written in `page/`.
//!
//! It asks the JSON of this endpoint like anybody else, with the admin token where there is one; these files hold
//! nothing about the cluster, so they are given to whoever asks. They load nothing from anywhere else.

use super::text;
use crate::answer::Answer;
use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! file {
    ($kind:expr, $name:literal) => {
        (concat!("/page/", $name), $kind, include_str!(concat!("page/", $name)))
    };
}

/// Where each file is served, as what, and its text. A test holds it against the folder.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/index.html")),
    file!(SVG, "icon.svg"),
    file!(CSS, "colours.css"),
    file!(CSS, "page.css"),
    file!(JAVASCRIPT, "ask.js"),
    file!(JAVASCRIPT, "build.js"),
    file!(JAVASCRIPT, "circle.js"),
    file!(JAVASCRIPT, "colours.js"),
    file!(JAVASCRIPT, "events.js"),
    file!(JAVASCRIPT, "forwards.js"),
    file!(JAVASCRIPT, "health.js"),
    file!(JAVASCRIPT, "lookup.js"),
    file!(JAVASCRIPT, "main.js"),
    file!(JAVASCRIPT, "members.js"),
    file!(JAVASCRIPT, "ring.js"),
    file!(JAVASCRIPT, "sessions.js"),
    file!(JAVASCRIPT, "source.js"),
    file!(JAVASCRIPT, "stream.js"),
    file!(JAVASCRIPT, "words.js"),
];

/// Nothing but these files, from here, and no text ever taken for HTML or script: names of clients are foreign text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another version of the node brings another page.
    (header::CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The file of the dashboard at this path, where there is one.
pub(super) fn asset(path: &str) -> Option<Answer> {
    let (_, kind, content) = FILES.iter().find(|(at, _, _)| *at == path)?;
    let mut answer = text(StatusCode::OK, kind, *content);
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Every name in quotes behind a word, such as `src="..."`.
    fn quoted<'a>(text: &'a str, before: &str, quote: char) -> Vec<&'a str> {
        let mut rest = text;
        let mut found = Vec::new();
        while let Some((_, behind)) = rest.split_once(before) {
            let (name, after) = behind.split_once(quote).expect("an open quote");
            found.push(name);
            rest = after;
        }
        found
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        let entries = std::fs::read_dir(folder).expect("the folder of the page");
        let mut there: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
            .map(|name| if name == "index.html" { "/".to_owned() } else { format!("/page/{name}") })
            .collect();
        let mut served: Vec<&str> = FILES.iter().map(|(path, _, _)| *path).collect();
        there.sort_unstable();
        served.sort_unstable();
        assert_eq!(served, there);
    }

    #[test]
    fn whatever_the_page_names_is_served_here() {
        let html = FILES[0].2;
        let named = [quoted(html, "src=\"", '"'), quoted(html, "href=\"", '"')].concat();
        assert!(named.len() > 4, "{named:?}");
        for path in named.into_iter().filter(|path| !path.starts_with('#')) {
            assert!(asset(path).is_some(), "{path}");
        }
        for (path, _, script) in FILES.iter().filter(|(_, kind, _)| *kind == JAVASCRIPT) {
            for import in quoted(script, "from './", '\'') {
                assert!(asset(&format!("/page/{import}")).is_some(), "{path} imports {import}");
            }
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_text_is_parsed_as_html() {
        // The one foreign address is a name, not a place: that of SVG.
        let svg = "http://www.w3.org/2000/svg";
        for (path, _, content) in FILES {
            let content = content.replace(svg, "");
            for never in
                ["http:", "https:", "//cdn", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML"]
            {
                assert!(!content.contains(never), "{path} has {never}");
            }
            for never in ["document.write", "eval(", "new Function", " style=\"", " onclick=", "localStorage"]
            {
                assert!(!content.contains(never), "{path} has {never}");
            }
        }
    }

    #[test]
    fn the_policy_allows_no_inline_script_or_style() {
        let answer = asset("/").expect("the page");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("plain text");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!FILES[0].2.contains("<style") && !FILES[0].2.contains("<script>"));
        assert_eq!(answer.headers()[header::CONTENT_TYPE], HTML);
        assert!(asset("/page/../mod.rs").is_none() && asset("/page/").is_none());
    }
}
