//! Tariff for Python.

use pyo3::prelude::*;

use super::json::Peek;
use super::quote::Quote;

/// What the requests of one plan are booked under, and what they can need.
#[pyclass(frozen, module = "penstock.ext._native")]
pub(super) struct Tariff {
    pub(super) route: Box<[u8]>,
    pub(super) model: Box<[u8]>,
    quote: Py<Quote>,
    tells_usage: bool,
}

/// What a request needs at most, and what has to be written into it for that to be the most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    pub tokens: u64,
    pub nano_usd: u64,
    /// 0 = none.
    pub output_cap: u64,
    pub ask_usage: bool,
}

#[pymethods]
impl Tariff {
    #[new]
    fn new(route: &[u8], model: &[u8], quote: Py<Quote>, tells_usage: bool) -> Self {
        Self {
            route: route.into(),
            model: model.into(),
            quote,
            tells_usage,
        }
    }
}

impl Tariff {
    /// tier: the longest answer the key may ask for.
    pub(super) fn need(&self, facts: &Peek, body: &[u8], tier: Option<u64>) -> Need {
        let quote = self.quote.get();
        let cap = quote.quote.output_cap(facts.max_output_tokens, tier);
        let (tokens, nano_usd) = quote.bounded(body, facts.choices, cap);
        Need {
            tokens,
            nano_usd,
            output_cap: match facts.max_output_tokens {
                Some(_) => 0,
                None => cap,
            },
            ask_usage: self.tells_usage && facts.stream == Some(true) && !facts.include_usage,
        }
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tariff>()
}
