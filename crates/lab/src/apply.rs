//! `layernorm apply`: one operator on anyone's tensors.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use layernorm::{Level, Run};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::console;
use crate::error::Error;
use crate::operators::{Extent, Float, How, Operator, Problem, Slot, Tensors, by_name};

/// The arguments of `layernorm apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Which operator
    #[arg(value_name = "OP", value_parser = by_name())]
    pub operator: &'static Operator,
    /// File to read: x, and where present weight, bias and dy
    #[arg(long, value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// File to write; it appears only when everything went well
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Added to the variance (to the mean square, in RMS norm) under the root
    #[arg(long, default_value = "1e-5", allow_hyphen_values = true)]
    pub eps: f64,
    /// The first of the axes that are normalised together, to the last; -1 is the last
    #[arg(long, value_name = "K", default_value_t = -1, allow_hyphen_values = true)]
    pub axis: i64,
    /// Instruction set; changes the speed, never a bit [default: the widest here]
    #[arg(long, value_parser = crate::cli::level())]
    pub level: Option<Level>,
    /// Threads; they change the speed, never a bit [default: the processor's]
    #[arg(long, value_name = "T", value_parser = crate::cli::threads)]
    pub threads: Option<usize>,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Applied {
    operator: &'static str,
    output: PathBuf,
    /// The type that sums and statistics are in.
    accumulation: &'static str,
    level: String,
    tensors: Vec<Written>,
    /// Tensors of the input that the operator doesn't know.
    ignored: Vec<String>,
}

/// A tensor of the output.
#[derive(Debug, Serialize)]
struct Written {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    #[serde(skip)]
    bytes: Vec<u8>,
}

/// Obeys.
///
/// # Errors
/// Files and tensors that don't fit; then nothing is written.
pub fn run(arguments: &ApplyArgs) -> Result<(), Error> {
    let applied = match arguments.threads {
        None => apply(arguments)?,
        Some(threads) => crate::cli::pool(threads)?.install(|| apply(arguments))?,
    };
    if arguments.json {
        return console::print_json(&applied);
    }
    if !applied.ignored.is_empty() {
        eprintln!("note: {} has no use for: {}", applied.operator, applied.ignored.join(", "));
    }
    let row = |tensor: &Written| vec![tensor.name.into(), words(tensor.dtype), format!("{:?}", tensor.shape)];
    let rows: Vec<_> = applied.tensors.iter().map(row).collect();
    let table = console::table(&["tensor", "type", "shape"], 3, &rows);
    let Operator { name, formula, .. } = arguments.operator;
    console::print(&format!("{name}: {formula}\n{table}written to {}", applied.output.display()))
}

fn apply(arguments: &ApplyArgs) -> Result<Applied, Error> {
    let bytes = std::fs::read(&arguments.input).map_err(Error::io(&arguments.input))?;
    let unsound = |source| Error::Safetensors { path: arguments.input.clone(), source };
    let file =
        File { tensors: SafeTensors::deserialize(&bytes).map_err(unsound)?, operator: arguments.operator };
    let x = file.get(Slot::X).ok_or_else(|| file.missing(Slot::X))?;
    let problem = Problem::new(x.shape(), arguments.axis, arguments.eps)?;
    let level = arguments.level.map_or(Run::default(), |level| Run::default().with_level(level));
    let tensors = match x.dtype() {
        Dtype::F64 => file.compute::<f64>(&problem, level)?,
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => file.compute::<f32>(&problem, level)?,
        other => {
            return Err(Error::Dtype {
                name: "x",
                found: words(other),
                expected: "f16, bf16, f32 or f64".into(),
            });
        }
    };
    write(&arguments.output, &tensors)?;
    Ok(Applied {
        operator: arguments.operator.name,
        output: arguments.output.clone(),
        accumulation: if x.dtype() == Dtype::F64 { f64::NAME } else { f32::NAME },
        level: level.level()?.to_string(),
        tensors,
        ignored: file.ignored(),
    })
}

/// The input, as the operator sees it.
struct File<'a> {
    tensors: SafeTensors<'a>,
    operator: &'static Operator,
}

impl File<'_> {
    fn get(&self, slot: Slot) -> Option<TensorView<'_>> {
        self.tensors.tensor(slot.name()).ok()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors.names().into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    fn missing(&self, slot: Slot) -> Error {
        Error::Missing { operator: self.operator.name, name: slot.name(), found: self.names() }
    }

    fn ignored(&self) -> Vec<String> {
        let reads = |name: &String| self.reads().any(|slot| slot.name() == name);
        self.names().into_iter().filter(|name| !reads(name)).collect()
    }

    /// Whatever either pass can read.
    fn reads(&self) -> impl Iterator<Item = Slot> {
        let Operator { forward, backward, .. } = self.operator;
        [forward.needs, forward.takes, backward.needs, backward.takes].into_iter().flatten().copied()
    }

    /// Runs the operator with statistics in `T`.
    fn compute<T: Number>(&self, problem: &Problem, run: Run) -> Result<Vec<Written>, Error> {
        let operator = self.operator;
        let mut tensors = Tensors::<T>::default();
        for slot in self.reads() {
            *tensors.slot(slot) = self.get(slot).map(|view| self.read(problem, slot, &view)).transpose()?;
        }
        if let Some(&slot) = operator.forward.needs.iter().find(|&&slot| tensors.get(slot).is_none()) {
            return Err(self.missing(slot));
        }
        let how = How { run, ..How::default() };
        let written = operator.run(problem, &how, &mut tensors)?;
        Ok(written.into_iter().filter_map(|slot| self.written(problem, &tensors, slot)).collect())
    }

    /// A tensor of the input, checked, in the type of the statistics.
    fn read<T: Number>(&self, problem: &Problem, slot: Slot, view: &TensorView<'_>) -> Result<Vec<T>, Error> {
        let x = self.get(Slot::X).map_or(view.dtype(), |x| x.dtype());
        let extent = (self.operator.extent)(slot);
        // Parameters of half inputs are often kept in f32.
        let fits = view.dtype() == x || (extent == Extent::Units && is_half(x) && view.dtype() == Dtype::F32);
        if !fits {
            let or = if extent == Extent::Units && is_half(x) { " or f32" } else { "" };
            let expected = format!("{}, the type of x{or},", words(x));
            return Err(Error::Dtype { name: slot.name(), found: words(view.dtype()), expected });
        }
        let dims = problem.dims(extent);
        let shared = extent == Extent::Units && view.shape().iter().product::<usize>() == 1;
        if view.shape() != dims && !shared {
            let or = if extent == Extent::Units { " or a single number" } else { "" };
            return Err(Error::Shape {
                name: slot.name(),
                found: view.shape().to_vec(),
                x: problem.shape.clone(),
                expected: format!("{dims:?}{or}"),
            });
        }
        Ok(T::decode(view.dtype(), view.data()))
    }

    /// An output in its type: that of x for tensors of its shape, that of the statistics for the others.
    fn written<T: Number>(&self, problem: &Problem, tensors: &Tensors<T>, slot: Slot) -> Option<Written> {
        let extent = (self.operator.extent)(slot);
        let values = tensors.get(slot)?;
        let dtype = match extent {
            Extent::Whole => self.get(Slot::X)?.dtype(),
            Extent::Rows | Extent::Units => T::DTYPE,
        };
        let shape = match slot.comes_with() {
            Some(input) => self.get(input)?.shape().to_vec(),
            None => problem.dims(extent).to_vec(),
        };
        Some(Written { name: slot.name(), dtype, shape, bytes: T::encode(dtype, values) })
    }
}

fn is_half(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16)
}

fn words(dtype: Dtype) -> String {
    dtype.to_string().to_lowercase()
}

/// A type of statistics, and its ways from and to bytes.
trait Number: Float {
    const DTYPE: Dtype;
    fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<Self>;
    fn encode(dtype: Dtype, values: &[Self]) -> Vec<u8>;
}

/// Little-endian numbers, one by one.
fn numbers<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

impl Number for f64 {
    const DTYPE: Dtype = Dtype::F64;
    fn decode(_: Dtype, bytes: &[u8]) -> Vec<Self> {
        numbers(bytes, Self::from_le_bytes)
    }
    fn encode(_: Dtype, values: &[Self]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<Self> {
        match dtype {
            Dtype::F16 => numbers(bytes, f16::from_le_bytes).to_f32_vec(),
            Dtype::BF16 => numbers(bytes, bf16::from_le_bytes).to_f32_vec(),
            _ => numbers(bytes, Self::from_le_bytes),
        }
    }
    /// Halves are rounded to nearest even, once.
    fn encode(dtype: Dtype, values: &[Self]) -> Vec<u8> {
        match dtype {
            Dtype::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

/// All or nothing: a file beside `path`, then renamed to it.
fn write(path: &Path, tensors: &[Written]) -> Result<(), Error> {
    let unsound = |source| Error::Safetensors { path: path.to_owned(), source };
    let views = tensors
        .iter()
        .map(|tensor| Ok((tensor.name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?)));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(unsound)?;
    let bytes = safetensors::serialize(views, None).map_err(unsound)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".layernorm-").tempfile_in(folder).map_err(Error::io(path))?;
    file.write_all(&bytes).map_err(Error::io(path))?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|error| Error::io(path)(error.error))?;
    Ok(())
}
