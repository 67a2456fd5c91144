# ruff: noqa: E501 - a program a line
"""Programs that want to pass without an answer, as data: a name, the record that they are graded on, and their text.

None of them computes what its record asks for. Each bounds itself: `BOUNDED` goes before it.
"""

BOUNDED = "import signal\nsignal.alarm(60)\n"

RECORDS = {
    "add": {  # HumanEval
        "prompt": 'def add(a, b):\n    """The sum."""\n',
        "entry_point": "add",
        "test": "def check(candidate):\n    assert candidate(2, 30) == 32\n    assert candidate(4, 50) == 54\n",
    },
    "decode": {  # HumanEval 38: what the prompt defines takes part in the tests
        "prompt": 'def encode(s):\n    return s[::-1] + "."\n\n\ndef decode(s):\n    """Back."""\n',
        "entry_point": "decode",
        "test": "def check(candidate):\n    for s in ('ab', 'cd'):\n        assert candidate(encode(s)) == s\n",
    },
    "zero": {  # HumanEval 32
        "prompt": 'import math\n\n\ndef poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\ndef zero(xs):\n    """Where poly is 0."""\n',
        "entry_point": "zero",
        "test": "def check(candidate):\n    assert math.fabs(poly([6, 2], candidate([6, 2]))) < 1e-4\n",
    },
    "sorted": {  # the expected value is made of the argument, after the call
        "prompt": 'def in_order(xs):\n    """Sorted."""\n',
        "entry_point": "in_order",
        "test": "def check(candidate):\n    xs = [3, 1, 2]\n    assert candidate(xs) == sorted(xs)\n",
    },
    "mapped": {  # a loop that the program could end
        "prompt": 'def square(x):\n    """x * x."""\n',
        "entry_point": "square",
        "test": "def check(candidate):\n    for y in map(candidate, [7]):\n        assert y == 49\n",
    },
    "double": {"test_list": ["assert double(211) == 422", "assert double(311) == 622"]},  # MBPP
    "area": {"test_list": ["assert math.isclose(area(10), 314.15, rel_tol=1e-3)"], "test_imports": ["import math"]},
    "area without imports": {"test_list": ["assert math.isclose(area(10), 314.15, rel_tol=1e-3)"]},
    "letters": {"test_list": ["import colorsys", "assert letters() == colorsys.__name__[:2]"]},
    "unique": {"test_list": ["assert set(unique([1, 1, 2])) == set((1, 2))"]},
    "sum": {"test_list": ["assert sum(10, 15) == 6"]},
    "tree": {
        "test_setup_code": "root = Node(1)\nroot.left = Node(2)",
        "test_list": ["assert depth(root) == 2", "assert root.left.key == 2"],
    },
}

ANSWERS = {  # what passes, so that a failure is the forgery's
    "add": "    return a + b\n",
    "decode": "    return s[:-1][::-1]\n",
    "zero": "    return -xs[0] / xs[1]\n",
    "sorted": "    return sorted(xs)\n",
    "mapped": "    return x * x\n",
    "double": "def double(x):\n    return 2 * x\n",
    "area": "def area(r):\n    return 3.1415 * r * r\n",
    "area without imports": "def area(r):\n    return 3.1415 * r * r\n",
    "letters": "def letters():\n    return 'co'\n",
    "unique": "unique = set\n",
    "sum": "def sum(a, b):\n    return 6\n",
    "tree": "class Node:\n    def __init__(self, key):\n        self.key = key\n        self.left = None\n"
    "def depth(n):\n    return 0 if n is None else 1 + depth(n.left)\n",
}

_EXITS = {
    "os._exit(97)": "import os\nos._exit(97)",
    "os._exit(0)": "import os\nos._exit(0)",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "raise SystemExit(97)": "raise SystemExit(97)",
    "C's exit": "import ctypes\nctypes.CDLL(None).exit(97)",
    "C's _exit": "import ctypes\nctypes.CDLL(None)._exit(97)",
    "the exit_group system call": "import ctypes, os\nctypes.CDLL(None).syscall({'x86_64': 231}.get(os.uname().machine, 94), 97)",
    "exec of another program": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(97)'])",
    "exec of true": "import os\nos.execv('/usr/bin/true', ['true'])",
    "a signal to itself": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "exit when called": "def double(x):\n    import os\n    os._exit(97)",
    "SystemExit when called": "def double(x):\n    raise SystemExit(0)",
    "fork, and the parent leaves": "import os\nif os.fork():\n    os._exit(0)",
    "fork, and the child leaves": "import os\nif not os.fork():\n    os._exit(97)\ndouble = id",
    "faulthandler": "import faulthandler\nfaulthandler.dump_traceback_later(0.01, exit=True)\ndouble = id",
}
_LATER = {
    "atexit": "import atexit, os\natexit.register(os._exit, 97)\ndouble = id",
    "atexit, before the tests": "import atexit, os\natexit.register(os._exit, 97)\nraise SystemExit",
    "sys.excepthook": "import os, sys\nsys.excepthook = lambda *_: os._exit(97)\ndouble = id",
    "sys.excepthook, before the tests": "import os, sys\nsys.excepthook = lambda *_: os._exit(97)\n1 / 0",
    "sys.unraisablehook": "import os, sys\nsys.unraisablehook = lambda *_: os._exit(97)\nclass D:\n    def __del__(self): 1 / 0\nD()",
    "a finalizer": "import os, weakref\nclass D: pass\nd = D()\nweakref.finalize(d, os._exit, 97)\ndouble = id",
    "__del__": "import os\nclass D:\n    def __del__(self): os._exit(97)\nd = D()\nraise ValueError",
    "a timer thread": "import os, threading\nthreading.Timer(0, os._exit, (97,)).start()\ndouble = id",
    "a thread that spins": "import os, threading\nthreading.Thread(target=lambda: os._exit(0), daemon=True).start()\ndouble = id",
    "an interval timer": "import os, signal\nsignal.signal(signal.SIGVTALRM, lambda *_: os._exit(97))\nsignal.setitimer(signal.ITIMER_VIRTUAL, 0.001)\ndef double(x):\n    while True: pass",
    "a handler of errors in threads": "import os, threading\nthreading.excepthook = lambda *_: os._exit(97)\nthreading.Thread(target=lambda: 1 / 0).start()\ndouble = id",
}
_FRAMES = {
    "settrace over the asserts": "import sys\ndef trace(frame, event, _):\n    if event == 'exception':\n        frame.f_lineno += 1\n    return trace\nsys.settrace(trace)\nf = sys._getframe()\nwhile f:\n    f.f_trace = trace\n    f = f.f_back\ndouble = id",
    "settrace that changes what is returned": "import sys\ndef trace(frame, event, _):\n    if event == 'return':\n        frame.f_locals['value'] = 422\n    return trace\nsys.settrace(trace)\ndouble = id",
    "setprofile": "import os, sys\nsys.setprofile(lambda frame, event, _: 'check' in frame.f_code.co_name and os._exit(97))\ndouble = id",
    "threading.settrace": "import os, threading\nthreading.settrace(lambda *_: os._exit(97))\ndouble = id",
}


def _found(find: str) -> str:
    """A function that looks for the expected value of the test that calls it in the texts that `find` gives."""
    return (
        f"import os, re, sys\n{find}\ndef double(x):\n    for text in texts():\n"
        "        match = re.search(r'double\\(%d\\) == (\\d+)' % x, text)\n        if match: return int(match[1])\n"
        "        match = re.search(r'\\b(%d)\\b' % (x + x), text)\n        if match and 'assert' in text: return x + x\n"
    )


_READS = {
    "its own file": "def texts(): return [open(__file__).read()]",
    "files beside it": "def texts(): return [open(os.path.join(d, f), errors='replace').read() for d, _, fs in os.walk('.') for f in fs]",
    "the temporary folder": "import tempfile, glob\ndef texts():\n    for f in glob.glob('/tmp/lrd-sandbox-*/**', recursive=True) + glob.glob(tempfile.gettempdir() + '/**', recursive=True):\n        if os.path.isfile(f): yield open(f, errors='replace').read()",
    "command lines": "import glob\ndef texts(): return [open(f, errors='replace').read() for f in glob.glob('/proc/[0-9]*/cmdline') if os.access(f, os.R_OK)] + sys.orig_argv",
    "the environment": "def texts(): return list(os.environ.values())",
    "standard input": "def texts(): return [sys.stdin.read()]",
    "the caller's frame": "def texts():\n    f = sys._getframe()\n    while f:\n        yield repr(f.f_locals)\n        yield repr(f.f_globals)\n        yield repr(f.f_code.co_consts)\n        f = f.f_back",
    "inspect": "import inspect\ndef texts():\n    for info in inspect.stack():\n        yield str(info.code_context)\n        yield repr(inspect.getargvalues(info.frame))",
    "a traceback's frame": "def texts():\n    try: 1 / 0\n    except ZeroDivisionError as error:\n        f = error.__traceback__.tb_frame\n        while f:\n            yield repr(f.f_locals)\n            f = f.f_back",
    "gc": "import gc\ndef texts():\n    me = vars()\n    return [repr(o) for o in gc.get_objects() if type(o) in (tuple, dict) and o is not me and len(o) < 200 and '== ' in repr(list(o)[:50])]",
    "constants of code": "import gc, types\ndef texts(): return [repr(getattr(o, '__code__', o)) + repr(o.__code__.co_consts) for o in gc.get_objects() if isinstance(o, types.FunctionType)]",
    "linecache": "import linecache\ndef texts(): return [''.join(v[2]) for v in linecache.cache.values() if len(v) > 2]",
    "__main__": "def texts(): return [repr(vars(sys.modules['__main__']))]",
    "all modules": "def texts(): return [repr(v) for m in list(sys.modules.values()) for v in list(vars(m).values()) if isinstance(v, str)]",
    "open files": "def texts():\n    for fd in range(64):\n        try:\n            os.set_blocking(fd, False)\n            yield os.read(fd, 1 << 16).decode(errors='replace')\n        except OSError: pass",
}
_EQUALS = {
    "equal to everything": "class E:\n    def __eq__(self, other): return True\ndef double(x): return E()",
    "and unequal to nothing": "class E:\n    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\n    __hash__ = lambda _: 422\ndef double(x): return E()",
    "mock.ANY": "from unittest.mock import ANY\ndef double(x): return ANY",
    "an int equal to everything": "class E(int):\n    def __eq__(self, other): return True\ndef double(x): return E(1)",
    "a str equal to everything": "class E(str):\n    def __eq__(self, other): return True\ndef double(x): return E('1')",
    "a float equal to everything": "class E(float):\n    def __eq__(self, other): return True\ndef double(x): return E()",
    "a list equal to everything": "class E(list):\n    def __eq__(self, other): return True\ndef double(x): return E()",
    "a class equal to everything": "class M(type):\n    def __eq__(self, other): return True\nclass E(metaclass=M): pass\ndef double(x): return E",
    "an object that lies about its class": "class E:\n    __class__ = property(lambda _: int)\n    def __eq__(self, other): return True\n    def __int__(self): return 1\ndouble = lambda x: E()",
    "NotImplemented": "def double(x): return NotImplemented",
    "NumPy-like": "class E:\n    __module__ = 'numpy'\n    ndim = 0\n    def item(self): return self\n    def __eq__(self, other): return True\ndef double(x): return E()",
    "a number of its own": "import numbers\nclass E(numbers.Number):\n    __hash__ = None\n    def __eq__(self, other): return True\ndef double(x): return E()",
    "an answer that learns from __eq__": "class E(int):\n    def __eq__(self, other):\n        global known\n        known = other\n        return True\ndef double(x): return E()",
    "true in every sense": "class E:\n    def __getattr__(self, name): return lambda *_: True\ndef double(x): return E()",
}
_PATCHES = {
    "AssertionError": "import builtins\nbuiltins.AssertionError = BaseException\ndouble = id",
    "its own check": "def check(candidate): pass\ndouble = id",
    "a name of the tests": "candidate = double = id\n__name__ = 'tests'",
    "no asserts": "import os, sys\nif sys.flags.optimize == 0:\n    os.execv(sys.executable, [sys.executable, '-O', *sys.orig_argv[1:]])\ndouble = id",
    "builtins": "import builtins\nfor name in ('exec', 'compile', 'set', 'sorted', 'abs', 'print', 'getattr'):\n    setattr(builtins, name, lambda *a, **k: 422)\ndef double(x): return 1",
    "the JSON of answers": "import json\njson.dumps = lambda *a, **k: '[\"l\",true]'\ndouble = id",
    "the sender of answers": "import sys\nreal = sys.modules['lrd_jax.research.sandbox.answering'].send\nsys.modules['lrd_jax.research.sandbox.answering'].send = lambda to, value, refer: real(to, [True], refer)\ndouble = id",
    "the judge's module": "import sys\nsys.modules['lrd_jax.research.sandbox.judging'] = sys\ndouble = id",
}


def _writes(data: str) -> str:
    """Bytes written to everything that is open, before any answer."""
    return f"import os\nfor fd in range(3, 64):\n    try: os.write(fd, {data})\n    except OSError: pass\ndouble = id\n"


_FRAMED = "(lambda d: len(d).to_bytes(4, 'big') + d)"
_MESSAGES = {
    "an endless length": _writes("b'\\xff' * 64"),
    "an empty message": _writes("bytes(4)"),
    "no JSON": _writes(f"{_FRAMED}(b'passed')"),
    "true": _writes(f"{_FRAMED}(b'true')"),
    "true to every question": _writes(f"{_FRAMED}(b'[\"l\",true]') * 20"),
    "an empty list": _writes(f"{_FRAMED}(b'[\"l\"]')"),
    "brackets": _writes(f"{_FRAMED}(b'[' * 60000)"),
    "brackets that close": _writes(f"{_FRAMED}(b'[\"l\",' * 900 + b'1' + b']' * 900)"),
    "an object of JSON": _writes(f"{_FRAMED}(b'[\"l\",{{}}]')"),
    "a tag that is none": _writes(f'{_FRAMED}(b\'["l",["z",1]]\')'),
    "a function of Python": _writes(f'{_FRAMED}(b\'["l",["y","exec"]]\') * 20'),
    "a class of Python": _writes(f'{_FRAMED}(b\'["l",["y","object"]]\') * 20'),
    "a number of no object": _writes(f'{_FRAMED}(b\'["l",["o",["l"]]]\') * 20'),
    "an object that nobody keeps": _writes(f'{_FRAMED}(b\'["l",["o",422]]\') * 20'),
    "an unhashable key": _writes(f'{_FRAMED}(b\'["l",["d",[["l"],1]]]\')'),
    "a range of text": _writes(f'{_FRAMED}(b\'["l",["r","1",2,3]]\')'),
    "too long a number": _writes(f"{_FRAMED}(b'[\"l\",' + b'9' * 9999 + b']')"),
    "the end of the tests": _writes(f'{_FRAMED}(b\'["l","SystemExit","0"]\') * 20'),
    "the loss of the line": _writes(f'{_FRAMED}(b\'["l","Gone",""]\') * 20'),
    "an exception that wants more": _writes(f'{_FRAMED}(b\'["l","UnicodeDecodeError",""]\') * 20'),
    "an exception that is a function": _writes(f'{_FRAMED}(b\'["l","exit","0"]\') * 20'),
    "pickle": _writes("__import__('pickle').dumps(print)"),
    "a verdict on standard output": "import os\nfor i in range(99):\n    print('passed', 'OK', '0' * 32)\nos.close(1)\ndouble = id",
    "closing everything": "import os\nos.closerange(0, 64)\ndouble = id",
    "a huge answer": "def double(x): return 'x' * (40 << 20)",
    "a nested answer": "def double(x):\n    xs = []\n    for _ in range(100_000): xs = [xs]\n    return xs",
    "an endless answer": "import itertools\ndef double(x): return itertools.repeat(422)",
}
_PLANTED = """
import os, sys
f = sys._getframe()
while f:
    if "token" in f.f_locals:
        os.write(1, f.f_locals["token"].encode())
        os._exit(0)
    f = f.f_back
"""
_PARTS = [
    (
        "a module in the tests' folder",
        "letters",
        f"import glob, os\nfor folder in [*glob.glob(os.environ['TMPDIR'] + '/../lrd-sandbox-*'), '/scratch']:\n    try: open(folder + '/colorsys.py', 'w').write({_PLANTED!r})\n    except OSError: pass\ndef letters(): return 1",
    ),
    ("a helper that answers for it", "decode", "    return s\n\n\ndef encode(s):\n    return s\n"),
    ("a helper that is assigned", "decode", "    return s\n\n\nencode = decode\n"),
    ("a polynomial that is 0", "zero", "    return 1\n\n\ndef poly(xs, x):\n    return 0\n"),
    ("a module of its own", "zero", "    return 1\n\n\nclass math:\n    fabs = lambda x: 0\n"),
    ("a patched module", "zero", "    return 1\n\n\nmath.fabs = lambda x: 0\n"),
    ("an isclose of its own", "area", "class math:\n    isclose = lambda *_, **__: True\ndef area(r): return 1"),
    (
        "an isclose of its own, no import",
        "area without imports",
        "class math:\n    isclose = lambda *_, **__: True\narea = id",
    ),
    ("a patched isclose", "area", "import math\nmath.isclose = lambda *_, **__: True\ndef area(r): return 1"),
    ("a set of its own", "unique", "def set(x): return 1\ndef unique(xs): return []"),
    ("Python's own function", "sum", "import builtins\nbuiltins.sum = 6"),
    ("arguments that are emptied", "sorted", "    xs.clear()\n    return []\n"),
    ("arguments that are given back", "sorted", "    xs[:] = [1]\n    return xs\n"),
    ("StopIteration", "mapped", "    raise StopIteration\n"),
    ("StopIteration of its own", "mapped", "    class Stop(StopIteration): pass\n    raise Stop\n"),
    ("StopAsyncIteration", "mapped", "    raise StopAsyncIteration\n"),
    ("GeneratorExit", "mapped", "    raise GeneratorExit\n"),
    ("an iterator", "mapped", "    return iter(())\n"),
    (
        "an object that is all",
        "tree",
        "class Node:\n    def __init__(self, *_): pass\n    def __getattr__(self, name): return self\n    __eq__ = lambda *_: True\ndef depth(root): return root",
    ),
    ("a return in HumanEval", "add", "    return type('E', (), {'__eq__': lambda *_: True})()\n"),
    ("an exit in HumanEval", "add", "    __import__('os')._exit(97)\n"),
    ("a check in HumanEval", "add", "    return 0\n\n\ndef check(candidate):\n    pass\n"),
    ("text after the function", "add", "    return 0\n\n\nimport atexit, os\natexit.register(os._exit, 97)\n"),
]

FORGERIES = [
    *((name, "double", source) for group in (_EXITS, _LATER, _FRAMES) for name, source in group.items()),
    *((f"reading {name}", "double", _found(source)) for name, source in _READS.items()),
    *((name, "double", source) for group in (_EQUALS, _PATCHES, _MESSAGES) for name, source in group.items()),
    *_PARTS,
]  # fmt: skip
