"""What a registration needs of itk-elastix, and no more of it.

`itk` loads, with a name, all that its module was built upon: for elastix hundreds of filters, some
7 s and 600 MB per process, none of which is called. What is called lies in four extension modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ItkElastix:
    """Classes of itk: a registration of float32 images, its parameters, and arrays as images."""

    method: Any
    parameters: Any
    floats: Any
    masks: Any

    def image(self, array: NDArray[Any]) -> Any:
        """A (y, x) float32 or uint8 array as itk sees it; to be kept while it is used."""
        buffer = self.floats if array.dtype == np.float32 else self.masks
        return buffer.GetImageViewFromArray(np.ascontiguousarray(array))


def load_elastix() -> ItkElastix:
    """One thread, no readers of files (40 MB). Raises ImportError where it is not installed."""
    import itkConfig

    itkConfig.DefaultFactoryLoading = False
    try:
        import itk.elxParameterObjectPython
        import itk.ITKCommonBasePython
        import itk.itkElastixRegistrationMethodPython
        import itk.itkPyBufferPython

        method = itk.itkElastixRegistrationMethodPython.itkElastixRegistrationMethodIF2IF2
        parameters = itk.elxParameterObjectPython.elastixParameterObject
        buffers, threads = itk.itkPyBufferPython, itk.ITKCommonBasePython.itkMultiThreaderBase
        floats, masks = buffers.itkPyBufferIF2, buffers.itkPyBufferIUC2
    except (ImportError, AttributeError):  # the same by their public names
        import itk

        image, mask = itk.Image[itk.F, 2], itk.Image[itk.UC, 2]
        method, parameters = itk.ElastixRegistrationMethod[image, image], itk.ParameterObject
        floats, masks, threads = itk.PyBuffer[image], itk.PyBuffer[mask], itk.MultiThreaderBase
    threads.SetGlobalDefaultNumberOfThreads(1)
    return ItkElastix(method, parameters, floats, masks)
