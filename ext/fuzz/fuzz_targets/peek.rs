//! peek gives serde_json's verdict on any bytes, and its fields on every object.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::json::{MAX_DEPTH, Peek, peek};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in order, duplicates too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

struct InOrder;

impl<'a> Visitor<'a> for InOrder {
    type Value = Members<'a>;

    fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

impl<'a> Members<'a> {
    /// None where a key has half of a surrogate pair, which serde cannot hold.
    fn read(text: &'a str) -> Option<Members<'a>> {
        serde_json::Deserializer::from_str(text)
            .deserialize_map(InOrder)
            .ok()
    }

    fn last<T: serde::Deserialize<'a>>(&self, key: &str) -> Option<T> {
        let (_, value) = self.0.iter().rev().find(|(name, _)| name == key)?;
        serde_json::from_str(value.get()).ok()
    }
}

/// The integer a number spells, by floating point, where that is exact.
fn small_integer(value: f64) -> Option<u64> {
    ((0.0..1e15).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

fn check_fields(text: &str, found: &Peek) {
    let Some(members) = Members::read(text) else {
        return;
    };
    let models: Vec<&str> = members
        .0
        .iter()
        .filter(|(name, _)| name == "model")
        .map(|(_, value)| value.get())
        .collect();
    let spans: Vec<&str> = found
        .model_spans
        .iter()
        .map(|&(start, end)| &text[start..end])
        .collect();
    assert_eq!(spans, models);
    assert_eq!(
        found.model.as_deref(),
        members.last::<String>("model").as_deref()
    );
    assert_eq!(
        found.model_mistyped,
        !models.is_empty() && found.model.is_none()
    );
    assert_eq!(
        found.user.as_deref(),
        members.last::<String>("user").as_deref()
    );
    assert_eq!(found.stream, members.last::<bool>("stream"));
    let options = members
        .last::<&RawValue>("stream_options")
        .and_then(|value| Members::read(value.get()));
    let include = options.and_then(|options| options.last::<bool>("include_usage"));
    if !text.contains("\\u") {
        assert_eq!(found.include_usage, include == Some(true));
    }
    let caps = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    let ollamas = members
        .last::<&RawValue>("options")
        .and_then(|value| Members::read(value.get()))
        .and_then(|options| small_integer(options.last::<f64>("num_predict")?))
        .filter(|&cap| cap > 0);
    let least = caps
        .iter()
        .filter_map(|cap| small_integer(members.last::<f64>(cap)?))
        .chain(ollamas)
        .min();
    if let (Some(least), Some(cap)) = (least, found.max_output_tokens()) {
        // A fraction below the precision of f64 is still a fraction: only then may ours be larger or missing.
        assert!(cap >= least || cap > 1 << 52, "{cap} is less than {least}");
    }
}

fuzz_target!(|body: &[u8]| {
    let text = std::str::from_utf8(body).ok();
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    let valid =
        text.is_some_and(|text| is_object && serde_json::from_str::<IgnoredAny>(text).is_ok());
    match peek(body) {
        Ok(found) => {
            assert!(valid, "peek takes what serde_json refuses");
            check_fields(text.unwrap(), &found);
        }
        Err(error) => {
            let too_deep = body
                .iter()
                .filter(|&&byte| byte == b'{' || byte == b'[')
                .count()
                > MAX_DEPTH;
            assert!(
                !valid || too_deep,
                "peek refuses what serde_json takes: {error}"
            );
            assert!(error.at <= body.len());
        }
    }
});
