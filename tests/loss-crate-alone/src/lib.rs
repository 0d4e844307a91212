//! A crate that depends on candle-losses alone.
