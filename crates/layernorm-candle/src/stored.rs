//! Tensors as candle hands them to an operation, and those that an operation takes along because it has three inputs at most.

use crate::error::Error;
use crate::rows::{Block, Blocks};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType};

/// Numbers, and how they lie.
pub(crate) type Stored<'a> = (&'a CpuStorage, &'a Layout);

/// The values of a contiguous tensor.
pub(crate) fn values<'a, T: WithDType>((storage, layout): Stored<'a>) -> Result<&'a [T]> {
    let memory = T::cpu_storage_as_slice(storage)?;
    let (start, end) = layout.contiguous_offsets().ok_or(Error::Rows)?;
    Ok(memory.get(start..end).ok_or(Error::Rows)?)
}

/// A parameter as the rows of its last axis.
pub(crate) fn parameter<'a, T: WithDType>((storage, layout): Stored<'a>) -> Result<Block<'a, T>> {
    let blocks = Blocks::of_last_axis(layout).ok_or(Error::Rows)?;
    Ok(blocks.block(0, T::cpu_storage_as_slice(storage)?)?)
}

/// Are all parameters that are there of type `E`?
pub(crate) fn all_of<E: WithDType>(parameters: [Option<Stored<'_>>; 2]) -> bool {
    parameters.iter().flatten().all(|(storage, _)| storage.dtype() == E::DTYPE)
}

/// `f` of tensors that are not among the inputs of an operation.
pub(crate) fn taken_along<V>(
    tensors: [Option<&Tensor>; 2],
    f: impl FnOnce([Option<Stored<'_>>; 2]) -> Result<V>,
) -> Result<V> {
    fn stored<'a>(
        held: &'a Option<(impl std::ops::Deref<Target = Storage>, &'a Layout)>,
    ) -> Result<Option<Stored<'a>>> {
        let Some((storage, layout)) = held else { return Ok(None) };
        match &**storage {
            Storage::Cpu(storage) => Ok(Some((storage, layout))),
            _ => Err(Error::Rows.into()),
        }
    }
    let [first, second] = &tensors.map(|tensor| tensor.map(Tensor::storage_and_layout));
    f([stored(first)?, stored(second)?])
}
