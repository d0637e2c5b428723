//! toml_spans takes what the TOML reader takes, and every place it tells is in the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::toml_spans::{Place, toml_spans};

fn is_in(text: &str, place: Place) -> bool {
    let line = text.split('\n').nth(place.line.wrapping_sub(1));
    place.column > 0 && line.is_some_and(|line| place.column <= line.chars().count() + 1)
}

fuzz_target!(|text: &str| {
    let valid = toml_edit::Document::parse(text).is_ok();
    match toml_spans(text) {
        Ok(spans) => {
            assert!(valid);
            assert!(
                spans
                    .iter()
                    .all(|span| is_in(text, span.key) && is_in(text, span.value))
            );
        }
        Err(error) => {
            assert!(!valid);
            assert!(is_in(text, error.place), "{error}");
        }
    }
});
