//! splice puts every piece where a plain concatenation does; a renamed body has the new model and no other change.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::json::{Edit, peek, splice};

type Input<'a> = (&'a [u8], Vec<(u8, u8, &'a [u8])>);

fn concatenated(body: &[u8], edits: &[Edit]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut reached = 0;
    for edit in edits {
        out.extend_from_slice(body.get(reached..edit.start)?);
        body.get(edit.start..edit.end)?;
        out.extend_from_slice(edit.text);
        reached = edit.end;
    }
    out.extend_from_slice(body.get(reached..)?);
    Some(out)
}

fn rename(body: &[u8]) {
    let Ok(found) = peek(body) else { return };
    let edits: Vec<Edit> = found
        .model_spans
        .iter()
        .map(|&(start, end)| Edit {
            start,
            end,
            text: b"\"new\"",
        })
        .collect();
    let renamed = splice(body, &edits).expect("spans are in order");
    let again = peek(&renamed).expect("a renamed body is JSON");
    assert_eq!(again.model.as_deref(), (!edits.is_empty()).then_some("new"));
    assert_eq!(again.model_spans.len(), edits.len());
    assert_eq!(
        (again.stream, again.max_output_tokens()),
        (found.stream, found.max_output_tokens())
    );
}

fuzz_target!(|input: Input| {
    let (body, edits) = input;
    let edits: Vec<Edit> = edits
        .iter()
        .map(|&(start, end, text)| Edit {
            start: start.into(),
            end: end.into(),
            text,
        })
        .collect();
    assert_eq!(splice(body, &edits).ok(), concatenated(body, &edits));
    rename(body);
});
