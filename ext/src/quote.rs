//! What a request's tokens cost: at most, before it, and in fact, after it. Whole numbers only, rounded up once.

use memchr::memmem;

use crate::json::remote_input;
use crate::reply::Usage;

/// Prices of a token in pico-USD, and what bounds the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quote {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
    /// Tokens a server adds to a prompt.
    pub margin: u64,
    /// The longest prompt of the model; None = not known.
    pub context: Option<u64>,
    /// A request may bring many prompts, each as long as the context.
    pub batch: bool,
    /// Tokens of an image that a body brings along.
    pub image: u64,
    /// Tokens of input that is not in the body, where the context is not known.
    pub remote: u64,
    /// The longest answer of the model; None = not known.
    pub longest: Option<u64>,
    /// What counts as the longest answer where nobody knows it; 0 = answers have no tokens that are paid for.
    pub unknown_longest: u64,
}

const PICO_IN_NANO: u128 = 1000;

impl Quote {
    /// (tokens, nano-USD) a request can need: a token stands for at least one byte of its body.
    pub fn worst(&self, body: &[u8], choices: u64, cap: u64) -> (u64, u64) {
        let mut prompt = (body.len() as u64).saturating_add(self.margin);
        let images = memmem::find_iter(body, b"data:image").count() as u64;
        prompt = prompt.saturating_add(images.saturating_mul(self.image));
        if remote_input(body) {
            prompt = prompt.max(self.context.unwrap_or(self.remote));
        }
        if let Some(context) = self.context.filter(|_| !self.batch) {
            prompt = prompt.min(context);
        }
        let completion = cap.saturating_mul(choices);
        let pico = sum([
            (prompt, self.input.max(self.cached)),
            (completion, self.output.max(self.reasoning)),
        ]);
        (prompt.saturating_add(completion), nano(pico))
    }

    /// The most tokens one answer can have. tier: the longest answer its key may ask for.
    pub fn output_cap(&self, asked: Option<u64>, tier: Option<u64>) -> u64 {
        if self.unknown_longest == 0 {
            return 0;
        }
        asked.unwrap_or_else(|| match (tier, self.longest) {
            (Some(tier), Some(longest)) => tier.min(longest),
            (Some(tier), None) => tier,
            (None, longest) => longest.unwrap_or(self.unknown_longest),
        })
    }

    /// Nano-USD of tokens that were used; cached ones are among the prompt's, reasoning among the completion's.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let reasoning = usage.reasoning_tokens.min(usage.completion_tokens);
        nano(sum([
            (usage.prompt_tokens - cached, self.input),
            (cached, self.cached),
            (usage.completion_tokens - reasoning, self.output),
            (reasoning, self.reasoning),
        ]))
    }
}

fn sum<const N: usize>(parts: [(u64, u64); N]) -> u128 {
    parts.iter().fold(0, |pico: u128, &(count, price)| {
        pico.saturating_add(u128::from(count) * u128::from(price))
    })
}

fn nano(pico: u128) -> u64 {
    u64::try_from(pico.div_ceil(PICO_IN_NANO)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_up_once() {
        let quote = Quote {
            input: 1,
            output: 1,
            ..Quote::default()
        };
        let usage = Usage {
            prompt_tokens: 999,
            completion_tokens: 2,
            ..Usage::default()
        };
        assert_eq!(quote.cost(&usage), 2);
        assert_eq!(quote.worst(b"{}", 3, 400), (1202, 2));
    }

    #[test]
    fn nothing_overflows() {
        let quote = Quote {
            input: u64::MAX,
            output: u64::MAX,
            margin: u64::MAX,
            ..Quote::default()
        };
        assert_eq!(quote.worst(b"{}", u64::MAX, u64::MAX), (u64::MAX, u64::MAX));
    }
}
