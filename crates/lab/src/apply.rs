//! `layernorm apply`: one operator on anyone's tensors.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use half::{bf16, f16};
use layernorm::{Level, Run};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::console;
use crate::error::Error;
use crate::operators::{
    Asked, Extent, How, Kind, Number, Operator, Problem, Slot, Tensors, Types, Wide, WideResidual, by_name,
    with,
};

/// The arguments of `layernorm apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Which operator
    #[arg(value_name = "OP", value_parser = by_name())]
    pub operator: &'static Operator,
    /// File to read: x, what else the operator needs, and where present what it takes
    #[arg(long, value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// File to write; it appears only when everything went well
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    asked: Asked,
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
    let input = arguments.operator.input();
    let x = file.get(input).ok_or_else(|| file.missing(input))?;
    let problem = Problem::new(arguments.operator, x.shape(), arguments.asked.options(arguments.operator)?)?;
    let level = arguments.level.map_or(Run::default(), |level| Run::default().with_level(level));
    let wide = |kind| file.kept_in_f32(kind);
    let tensors = match x.dtype() {
        Dtype::F64 => file.compute::<f64>(&problem, level)?,
        Dtype::F32 => file.compute::<f32>(&problem, level)?,
        Dtype::F16 if wide(Kind::R) => file.compute::<WideResidual<f16>>(&problem, level)?,
        Dtype::F16 if wide(Kind::P) => file.compute::<Wide<f16>>(&problem, level)?,
        Dtype::F16 => file.compute::<f16>(&problem, level)?,
        Dtype::BF16 if wide(Kind::R) => file.compute::<WideResidual<bf16>>(&problem, level)?,
        Dtype::BF16 if wide(Kind::P) => file.compute::<Wide<bf16>>(&problem, level)?,
        Dtype::BF16 => file.compute::<bf16>(&problem, level)?,
        other => {
            return Err(Error::Dtype {
                name: input.name(),
                found: words(other),
                expected: "f16, bf16, f32 or f64".into(),
            });
        }
    };
    write(&arguments.output, &tensors)?;
    Ok(Applied {
        operator: arguments.operator.name,
        output: arguments.output.clone(),
        accumulation: if x.dtype() == Dtype::F64 { "f64" } else { "f32" },
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
        let reads = |name: &String| self.operator.reads().any(|slot| slot.name() == name);
        self.names().into_iter().filter(|name| !reads(name)).collect()
    }

    /// The type of the input.
    fn dtype(&self) -> Dtype {
        self.get(self.operator.input()).map_or(Dtype::F32, |x| x.dtype())
    }

    /// Beside halves, is a parameter or the residual kept in f32?
    fn kept_in_f32(&self, kind: Kind) -> bool {
        let of_kind = |slot: &Slot| slot.kind() == kind;
        self.operator
            .reads()
            .filter(of_kind)
            .filter_map(|slot| self.get(slot))
            .any(|of| of.dtype() == Dtype::F32)
    }

    /// Runs the operator in these types.
    fn compute<T: Types>(&self, problem: &Problem, run: Run) -> Result<Vec<Written>, Error> {
        let operator = self.operator;
        let mut tensors = Tensors::<T>::default();
        for slot in operator.reads() {
            if let Some(view) = self.get(slot) {
                self.check(problem, slot, &view)?;
                read(&mut tensors, slot, &view)?;
            }
        }
        if let Some(&slot) = operator.forward.needs.iter().find(|&&slot| tensors.get(slot).is_none()) {
            return Err(self.missing(slot));
        }
        let how = How { run, ..How::default() };
        let written = operator.run(problem, &how, &mut tensors)?;
        Ok(written.into_iter().filter_map(|slot| self.written(problem, &tensors, slot)).collect())
    }

    /// Has a tensor of the input a type and a shape that fit?
    fn check(&self, problem: &Problem, slot: Slot, view: &TensorView<'_>) -> Result<(), Error> {
        let (x, found) = (self.dtype(), view.dtype());
        let input = self.operator.input().name();
        // Parameters of half inputs are often kept in f32.
        let (fits, expected) = match slot.kind() {
            Kind::P | Kind::R if is_half(x) => {
                (found == x || found == Dtype::F32, format!("{}, the type of {input} or f32,", words(x)))
            }
            Kind::E | Kind::P | Kind::R => (found == x, format!("{}, the type of {input},", words(x))),
            Kind::A if x == Dtype::F64 => (found == Dtype::F64, "f64".to_owned()),
            Kind::A => (found == Dtype::F32, "f32".to_owned()),
            Kind::I => (matches!(found, Dtype::I32 | Dtype::I64), "i32 or i64".to_owned()),
            Kind::B => (matches!(found, Dtype::BOOL | Dtype::U8), "bool or u8".to_owned()),
            // Written, never read.
            Kind::S | Kind::Int8 | Kind::E4m3 | Kind::E5m2 => (false, "no input".to_owned()),
        };
        if !fits {
            return Err(Error::Dtype { name: slot.name(), found: words(found), expected });
        }
        let extent = (self.operator.extent)(slot);
        let dims = problem.dims(extent);
        let single = view.shape().iter().product::<usize>() == 1;
        let (fits, expected) = match extent {
            Extent::One => (single, "a single number".to_owned()),
            Extent::Entries => {
                let entry = view.shape().get(1..).filter(|entry| *entry == &dims[1..]);
                (entry.is_some(), format!("any number of entries of shape {:?}", &dims[1..]))
            }
            _ if extent.can_be_shared() => {
                let shapes = problem.shapes(extent);
                let listed: Vec<String> = shapes.iter().map(|dims| format!("{dims:?}")).collect();
                let fits = single || shapes.iter().any(|dims| view.shape() == dims);
                (fits, format!("{} or a single number", listed.join(" or ")))
            }
            _ => (view.shape() == dims, format!("{dims:?}")),
        };
        let (found, x) = (view.shape().to_vec(), problem.shape.clone());
        if fits { Ok(()) } else { Err(Error::Shape { name: slot.name(), found, input, x, expected }) }
    }

    /// An output in its type.
    fn written<T: Types>(&self, problem: &Problem, tensors: &Tensors<T>, slot: Slot) -> Option<Written> {
        let view = tensors.get(slot)?;
        // A parameter's gradient is shaped as it is.
        let shape = match slot.comes_with() {
            Some(input) => self.get(input)?.shape().to_vec(),
            None => problem.dims((self.operator.extent)(slot)),
        };
        let mut bytes = Vec::new();
        let dtype = with!(view, values => {
            values.iter().for_each(|value| value.write(&mut bytes));
            dtype_of(values)
        });
        Some(Written { name: slot.name(), dtype, shape, bytes })
    }
}

fn dtype_of<N: Number>(_: &[N]) -> Dtype {
    N::DTYPE
}

/// Fills a tensor from a file.
fn read<T: Types>(tensors: &mut Tensors<T>, slot: Slot, view: &TensorView<'_>) -> Result<(), Error> {
    fn of<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> impl Iterator<Item = f64> {
        bytes.as_chunks().0.iter().map(move |&bytes| number(bytes))
    }
    let bytes = view.data();
    match view.dtype() {
        Dtype::F64 => tensors.fill(slot, of(bytes, f64::from_le_bytes)),
        Dtype::F32 => tensors.fill(slot, of(bytes, |b| f32::from_le_bytes(b).into())),
        Dtype::F16 => tensors.fill(slot, of(bytes, |b| f16::from_le_bytes(b).into())),
        Dtype::BF16 => tensors.fill(slot, of(bytes, |b| bf16::from_le_bytes(b).into())),
        Dtype::BOOL | Dtype::U8 => tensors.fill(slot, bytes.iter().map(|&byte| byte.into())),
        integers => {
            let indices: Vec<i64> = match integers {
                Dtype::I32 => bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect(),
                _ => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect(),
            };
            if let Some(&index) = indices.iter().find(|index| **index < 0) {
                return Err(Error::Index { name: slot.name(), index });
            }
            tensors.fill(slot, indices.into_iter().map(|index| index as f64));
        }
    }
    Ok(())
}

fn is_half(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16)
}

fn words(dtype: Dtype) -> String {
    dtype.to_string().to_lowercase()
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
