"""TRANSCODE steps: one task that encodes one film.

**The runner's side of the contract.** A process per task: ``{python} {encode_runner} REQUEST``, where REQUEST is one JSON
object, flat, every path absolute after the agent replaced ``{work}``. The runner makes the parent of ``out``, verifies the
result (frame count, rate, duration) and ends with ``shisuan_done: {json}`` and exit code 0, or with
``shisuan_fail: reason`` and another code.

=================  ===============================================================================================
``source``         ``pattern``, ``folder`` or ``video``
``input``          ``pattern``: absolute path with one run of ``#`` for the zero-padded frame number
                   (``/films/film.####.png``); ``folder``: a folder whose numbered PNG files are the frames, in the order of
                   their numbers; ``video``: a video file
``first``          ``pattern``, ``folder``: number of the first frame; -1: whatever is there (``folder`` only)
``last``           number of the last frame, **included**; -1 with ``first`` -1
``step``           distance between the numbers, 1 when all are there
``fps``            ``"24"`` or ``"24000/1001"``; empty: the rate of the source (``video`` only)
``codec``          ``h264``
``crf``            0–51
``preset``         x264's preset
``threads``        encoder threads: the whole vCPUs leased, at least 1
``out``            the file to write: ``{work}/outputs/film.mp4``
``expect_frames``  exact number of frames the result must have; 0: as many as the source has
=================  ===============================================================================================
"""

from __future__ import annotations
