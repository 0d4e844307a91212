//! The format of golden files.
//!
//! | field | holds |
//! |---|---|
//! | `name`, `op` | a name, and the function |
//! | `input`, `input_shape` | the logits or values, row-major |
//! | `target`, `target_shape`, `target_kind` | `indices`, `probabilities` or `values` |
//! | `weight`, `ignore_index`, `label_smoothing` | options of cross entropy; null or absent where not set |
//! | `reduction` | `mean`, `sum`, `none`, or `batchmean` |
//! | `params` | the options of pointwise losses, by PyTorch's names |
//! | `grad_output` | the upstream gradient, as many numbers as the loss |
//! | `loss`, `loss_shape`, `grad_input` | what PyTorch computed |
//! | `grad_target` | the same for the target; absent where it was not asked for |

use super::fields::Fields;
use serde_json::{Map, Value};

/// What the target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// Class indices.
    Indices,
    /// Class probabilities, in the shape of the input.
    Probabilities,
    /// Numbers of the pointwise losses.
    Values,
}

/// One case as the file has it, its arrays checked against their shapes.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Named as in the file; the module has the table.
pub struct GoldenCase {
    pub name: String,
    pub op: String,
    pub input: Vec<f64>,
    pub input_shape: Vec<usize>,
    pub target: Vec<f64>,
    pub target_shape: Vec<usize>,
    pub target_kind: TargetKind,
    pub weight: Option<Vec<f64>>,
    pub ignore_index: Option<i64>,
    pub label_smoothing: f64,
    pub reduction: String,
    pub params: Map<String, Value>,
    pub grad_output: Vec<f64>,
    pub loss: Vec<f64>,
    pub loss_shape: Vec<usize>,
    pub grad_input: Vec<f64>,
    pub grad_target: Option<Vec<f64>>,
}

/// The name that this version of the format goes by.
const FORMAT: &str = "golden-losses-1";

/// Reads the text of a golden file.
///
/// # Errors
/// A message that names the case and the field, what was expected and what was found.
pub fn parse(text: &str) -> Result<Vec<GoldenCase>, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))?;
    let file = Fields::new(&value, "the file".to_string())?;
    let format = file.string("format")?;
    if format != FORMAT {
        return Err(file.error("format", &format!("\"{FORMAT}\""), &format!("{format:?}")));
    }
    file.array("cases")?
        .iter()
        .enumerate()
        .map(|(i, case)| parse_case(i, case))
        .collect()
}

fn parse_case(position: usize, value: &Value) -> Result<GoldenCase, String> {
    let name = Fields::new(value, format!("case {position}"))?.string("name")?;
    let fields = Fields::new(value, format!("case {position} ({name:?})"))?;
    let (input_shape, target_shape) = (fields.shape("input_shape")?, fields.shape("target_shape")?);
    let loss_shape = fields.shape("loss_shape")?;
    let input = fields.tensor("input", &input_shape, "input_shape")?;
    let target = fields.tensor("target", &target_shape, "target_shape")?;
    let kind = fields.string("target_kind")?;
    let target_kind = match kind.as_str() {
        "indices" => TargetKind::Indices,
        "probabilities" => TargetKind::Probabilities,
        "values" => TargetKind::Values,
        _ => {
            let expected = "\"indices\", \"probabilities\" or \"values\"";
            return Err(fields.error("target_kind", expected, &format!("{kind:?}")));
        }
    };
    if target_kind == TargetKind::Indices {
        let whole = |t: &f64| t.fract() == 0.0 && t.abs() < 9e15;
        if let Some(other) = target.iter().find(|t| !whole(t)) {
            return Err(fields.error(
                "target",
                "whole numbers, as \"target_kind\" is \"indices\"",
                &other.to_string(),
            ));
        }
    }
    let reduction = fields.string("reduction")?;
    if !["mean", "sum", "none", "batchmean"].contains(&reduction.as_str()) {
        let expected = "\"mean\", \"sum\", \"none\" or \"batchmean\"";
        return Err(fields.error("reduction", expected, &format!("{reduction:?}")));
    }
    let params = match fields.optional("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params.clone(),
        Some(_) => return Err(fields.error("params", "an object", "something else")),
    };
    let present = |field: &str| fields.optional(field).is_some();
    Ok(GoldenCase {
        op: fields.string("op")?,
        weight: present("weight")
            .then(|| fields.numbers("weight"))
            .transpose()?,
        ignore_index: fields.integer("ignore_index")?,
        label_smoothing: fields.number_or("label_smoothing", 0.0)?,
        grad_output: fields.tensor("grad_output", &loss_shape, "loss_shape")?,
        loss: fields.tensor("loss", &loss_shape, "loss_shape")?,
        grad_input: fields.tensor("grad_input", &input_shape, "input_shape")?,
        grad_target: (present("grad_target")
            .then(|| fields.tensor("grad_target", &target_shape, "target_shape")))
        .transpose()?,
        name,
        input,
        input_shape,
        target,
        target_shape,
        target_kind,
        reduction,
        params,
        loss_shape,
    })
}
