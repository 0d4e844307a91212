//! Tests of cross entropy: golden values, an f64 oracle over every option and layout, edges, errors.

mod worked_example;
