//! Quote for Python.

use pyo3::prelude::*;

use super::reply::Usage;
use crate::quote;

/// What the tokens of a request cost: at most, and in fact.
#[pyclass(frozen, module = "penstock.ext._native")]
pub(super) struct Quote {
    pub(super) quote: quote::Quote,
    most_tokens: u64,
    most_nano_usd: u64,
}

impl Quote {
    /// (tokens, nano-USD) a request with this body can need at most.
    pub(super) fn bounded(&self, body: &[u8], choices: u64, cap: u64) -> (u64, u64) {
        let (tokens, nano_usd) = self.quote.worst(body, choices, cap);
        (
            tokens.min(self.most_tokens),
            nano_usd.min(self.most_nano_usd),
        )
    }

    /// Nano-USD of what was used.
    pub(super) fn spent(&self, usage: &Usage) -> u64 {
        self.quote.cost(&usage.counts()).min(self.most_nano_usd)
    }
}

#[pymethods]
impl Quote {
    #[new]
    #[pyo3(signature = (*, input_pico, cached_pico, output_pico, reasoning_pico, margin, context, batch, image, remote,
                        longest, unknown_longest, most_tokens, most_nano_usd))]
    #[expect(clippy::too_many_arguments)]
    fn new(
        input_pico: u64,
        cached_pico: u64,
        output_pico: u64,
        reasoning_pico: u64,
        margin: u64,
        context: Option<u64>,
        batch: bool,
        image: u64,
        remote: u64,
        longest: Option<u64>,
        unknown_longest: u64,
        most_tokens: u64,
        most_nano_usd: u64,
    ) -> Self {
        let quote = quote::Quote {
            input: input_pico,
            cached: cached_pico,
            output: output_pico,
            reasoning: reasoning_pico,
            margin,
            context,
            batch,
            image,
            remote,
            longest,
            unknown_longest,
        };
        Quote {
            quote,
            most_tokens,
            most_nano_usd,
        }
    }

    /// (tokens, nano-USD) a request with this body can need at most.
    fn worst(&self, body: &[u8], choices: u64, cap: u64) -> (u64, u64) {
        self.bounded(body, choices, cap)
    }

    /// Nano-USD of what was used.
    fn cost(&self, usage: &Usage) -> u64 {
        self.spent(usage)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Quote>()
}
