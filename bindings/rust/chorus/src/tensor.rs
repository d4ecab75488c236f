// SPDX-License-Identifier: Apache-2.0
//! Views of slices: what crosses to the library, without copies.

use crate::{sized, sys, Error, Result};
use std::marker::PhantomData;

/// A number the library has a data type for.
///
/// # Safety
/// `DTYPE` describes the memory of `Self`, for which every bit pattern is a value.
pub unsafe trait Element: Copy {
    /// `CHORUS_F32`, …
    const DTYPE: u32;
}

/// Bits of a bfloat16.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bf16(pub u16);

/// Bits of an IEEE binary16.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F16(pub u16);

macro_rules! elements {
    ($($kind:ty = $constant:ident,)*) => {
        $(// SAFETY: same size, and any bits are a number.
        unsafe impl Element for $kind { const DTYPE: u32 = sys::$constant; })*
    };
}
elements! {
    f64 = CHORUS_F64, f32 = CHORUS_F32, F16 = CHORUS_F16, Bf16 = CHORUS_BF16, i64 = CHORUS_I64, i32 = CHORUS_I32,
    i16 = CHORUS_I16, i8 = CHORUS_I8, u64 = CHORUS_U64, u32 = CHORUS_U32, u16 = CHORUS_U16, u8 = CHORUS_U8,
}

/// The C struct of a view; the shape lies behind a stable address.
struct View {
    raw: Box<sys::chorus_tensor>,
    _shape: Box<[i64]>,
}

impl View {
    fn new<T: Element>(data: *mut T, len: usize, shape: &[usize], flags: u32) -> Result<View> {
        let count = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if count != Some(len) {
            return Err(Error::invalid(format!("a slice of {len} elements has not the shape {shape:?}")));
        }
        let shape: Box<[i64]> = shape.iter().map(|n| *n as i64).collect();
        let mut raw = Box::new(sized!(sys::chorus_tensor));
        raw.data = data.cast();
        raw.size_bytes = (len * std::mem::size_of::<T>()) as u64;
        raw.device_type = sys::CHORUS_DEVICE_HOST as i32;
        raw.dtype_code = (T::DTYPE & 0xff) as u8;
        raw.dtype_bits = (T::DTYPE >> 8) as u8;
        raw.dtype_lanes = 1;
        raw.ndim = shape.len() as i32;
        raw.flags = flags;
        raw.shape = shape.as_ptr();
        Ok(View { raw, _shape: shape })
    }
}

/// A slice that is read, with its shape.
pub struct Tensor<'a> {
    view: View,
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Tensor<'a> {
    /// Row-major view; fails where the shape's product is not the length.
    pub fn new<T: Element>(data: &'a [T], shape: &[usize]) -> Result<Self> {
        let view = View::new(data.as_ptr() as *mut T, data.len(), shape, sys::CHORUS_TENSOR_READ_ONLY)?;
        Ok(Tensor { view, borrowed: PhantomData })
    }
    pub(crate) fn get(&self) -> *const sys::chorus_tensor {
        &*self.view.raw
    }
    pub(crate) fn rows(&self) -> i64 {
        self.view._shape.first().copied().unwrap_or(1)
    }
}

/// A slice that is written, with its shape.
pub struct TensorMut<'a> {
    view: View,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> TensorMut<'a> {
    /// Row-major view; fails where the shape's product is not the length.
    pub fn new<T: Element>(data: &'a mut [T], shape: &[usize]) -> Result<Self> {
        Ok(TensorMut { view: View::new(data.as_mut_ptr(), data.len(), shape, 0)?, borrowed: PhantomData })
    }
    pub(crate) fn get(&mut self) -> *const sys::chorus_tensor {
        &*self.view.raw
    }
}

/// NULL for None.
pub(crate) fn read(tensor: &Option<Tensor<'_>>) -> *const sys::chorus_tensor {
    tensor.as_ref().map_or(std::ptr::null(), Tensor::get)
}
pub(crate) fn written(tensor: &mut Option<TensorMut<'_>>) -> *const sys::chorus_tensor {
    tensor.as_mut().map_or(std::ptr::null(), TensorMut::get)
}
