//! Tests of cross entropy: golden values, an f64 oracle over every option and layout, edges, errors.

mod edges;
mod errors;
mod long_rows;
mod oracle;
mod outputs;
mod properties;
mod second_derivative;
mod threads;
mod value_and_grad;
mod worked_example;
