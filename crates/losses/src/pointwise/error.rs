//! The one error of a pointwise loss: an argument that does not fit.

use candle_core::Error;

/// Names the loss and the argument, what it must be, what came, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{loss}: {argument} must {must}, got {got}; {advice}")]
pub(crate) struct BadArgument {
    pub(crate) loss: &'static str,
    pub(crate) argument: &'static str,
    pub(crate) must: String,
    pub(crate) got: String,
    pub(crate) advice: &'static str,
}

impl From<BadArgument> for Error {
    fn from(error: BadArgument) -> Self {
        Error::wrap(error)
    }
}

/// A number that the loss's formula needs to be finite and above 0 (or not below it).
pub(crate) fn check_number(
    loss: &'static str,
    argument: &'static str,
    value: f64,
    must: &str,
    fits: bool,
    advice: &'static str,
) -> Result<(), BadArgument> {
    if fits && value.is_finite() {
        return Ok(());
    }
    Err(BadArgument {
        loss,
        argument,
        must: must.to_owned(),
        got: value.to_string(),
        advice,
    })
}
