"""The colours of matplotlib, to reject a misspelt one without importing it."""

from __future__ import annotations

import re

_CSS = """
    aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond blue blueviolet brown burlywood
    cadetblue chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue darkcyan darkgoldenrod
    darkgray darkgreen darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid darkred darksalmon
    darkseagreen darkslateblue darkslategray darkslategrey darkturquoise darkviolet deeppink deepskyblue dimgray
    dimgrey dodgerblue firebrick floralwhite forestgreen fuchsia gainsboro ghostwhite gold goldenrod gray green
    greenyellow grey honeydew hotpink indianred indigo ivory khaki lavender lavenderblush lawngreen lemonchiffon
    lightblue lightcoral lightcyan lightgoldenrodyellow lightgray lightgreen lightgrey lightpink lightsalmon
    lightseagreen lightskyblue lightslategray lightslategrey lightsteelblue lightyellow lime limegreen linen magenta
    maroon mediumaquamarine mediumblue mediumorchid mediumpurple mediumseagreen mediumslateblue mediumspringgreen
    mediumturquoise mediumvioletred midnightblue mintcream mistyrose moccasin navajowhite navy oldlace olive
    olivedrab orange orangered orchid palegoldenrod palegreen paleturquoise palevioletred papayawhip peachpuff peru
    pink plum powderblue purple rebeccapurple red rosybrown royalblue saddlebrown salmon sandybrown seagreen
    seashell sienna silver skyblue slateblue slategray slategrey snow springgreen steelblue tan teal thistle tomato
    turquoise violet wheat white whitesmoke yellow yellowgreen
"""

CSS_COLORS = frozenset(_CSS.split())

_TABLEAU = "blue orange green red purple brown pink gray olive cyan"

TABLEAU_COLORS = frozenset(f"tab:{name}" for name in _TABLEAU.split())

_BASE_COLORS = frozenset("bgrcmykw")
_CODE = re.compile(r"#([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})|C[0-9]+")


def is_color(text: str) -> bool:
    """Return whether matplotlib has the colour: `red`, `#1f77b4`, `tab:blue`, `C3`, `xkcd:sky blue`, `0.5`.

    `none`, which draws nothing, is not a colour here. Only a name that begins with `xkcd:` imports matplotlib.
    """
    lowered = text.lower()
    if lowered in CSS_COLORS or lowered in TABLEAU_COLORS or text in _BASE_COLORS or _CODE.fullmatch(text):
        return True
    if lowered.startswith("xkcd:"):  # 949 names, more than are worth a copy
        from matplotlib.colors import XKCD_COLORS

        return lowered in XKCD_COLORS
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
