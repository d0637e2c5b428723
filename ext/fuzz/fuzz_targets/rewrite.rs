//! A rewritten body is JSON, has what was asked for, and no other member changed; remote_input takes any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::json::{Cap, Changes, peek, remote_input, rewrite};
use serde_json::Value;

fn without_what_changes(body: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    let members = value.as_object_mut()?;
    for name in ["model", "stream_options", "options"] {
        members.remove(name);
    }
    for cap in Cap::ALL {
        members.remove(cap.name());
    }
    Some(value)
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (number, ask_usage, body) = input;
    remote_input(body);
    let Ok(facts) = peek(body) else { return };
    let cap = Cap::ALL.get(usize::from(number % 5)).copied();
    let changes = Changes {
        model: Some(b"\"new\""),
        ask_usage,
        cap: cap.map(|cap| (cap, 7)),
    };
    let changed = rewrite(body, &facts.model_spans, &facts.places(), &changes)
        .expect("the facts are those of the body");
    let again = peek(&changed).expect("a rewritten body is JSON");
    assert!(again.include_usage || !ask_usage);
    assert_eq!(
        again.model.as_deref(),
        (!facts.model_spans.is_empty()).then_some("new")
    );
    assert!(cap.is_none() || again.max_output_tokens().is_some_and(|tokens| tokens <= 7));
    // serde_json reads no number out of the range of f64.
    if let Some(before) = without_what_changes(body) {
        assert_eq!(without_what_changes(&changed), Some(before));
    }
    assert_eq!(
        rewrite(&changed, &again.model_spans, &again.places(), &changes),
        Ok(changed)
    );
});
