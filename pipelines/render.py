"""SCENE and RENDER steps: what a resident Blender child is asked to do.

**The runner's side of the contract.** Both kinds run in one resident child, started as ``{blender} {blender_runner}``. Each
task is one line of JSON on its stdin; it answers with the line protocol on stdout and ends the task with
``shisuan_done: {json}`` or ``shisuan_fail: reason``. Requests are flat; every path is absolute after the agent replaced
``{work}``. The runner makes the folder named by ``out``, or the parent of ``save``, when it is missing.

``{"op": "frame", …}`` renders one frame:

==========  ======================================================================================================
``blend``   absolute path of the .blend
``frame``   the scene's frame number
``width``   pixels; 0: as the file says (then ``height`` is 0 too)
``height``  pixels
``samples`` Cycles samples; 0: as the file says
``engine``  ``CYCLES``
``device``  ``auto`` (a visible card if there is one, else the CPU), ``cpu``, ``cuda``, ``optix``; the last two fail
            with ``shisuan_fail`` when the card is not there
``seed``    Cycles seed; -1: as the file says
``threads`` render threads: the whole vCPUs leased, at least 1
``out``     folder both files go to: ``{work}/outputs``
``exr``     file name of the float OpenEXR, e.g. ``film.0001.exr``
``png``     file name of the 8-bit preview, e.g. ``film.0001.png``
==========  ======================================================================================================

``{"op": "scene", …}`` builds a .blend with a script, from an empty file:

==========  ======================================================================================================
``script``  absolute path of a Python file that has ``build(seed: int, args: dict) -> None`` and works on ``bpy``
``seed``    given to ``build``
``args``    given to ``build``: a JSON object
``save``    the .blend to write: ``{work}/outputs/NAME.blend``
==========  ======================================================================================================
"""

from __future__ import annotations
