"""The words and commands with which answers are written, by what they mean for a value."""


def _words(text: str) -> frozenset[str]:
  return frozenset(text.split())


# Words that are recognised without a style around them. Other runs of letters may be products of variables.
BARE = _words(
  'and or if otherwise not either neither nor unless maybe both answer is the of per square cubic million billion '
  'trillion thousand hundred dozen squared cubed remainder base percent percentage pct unit units degree degrees '
  'radian radians cm mm km kg ft yd mph inch inches foot feet yard yards mile miles meter meters metre metres '
  'centimeter centimeters centimetre centimetres millimeter millimeters kilometer kilometers gram grams kilogram '
  'kilograms liter liters litre litres second seconds minute minutes hour hours hr hrs day days week weeks month '
  'months year years dollar dollars cent cents euro euros pound pounds usd rupees a.m p.m option choice east west '
  'north south true false yes no none undefined infinity apples people students ways times'
)

# Functions; a style may be used in place of their command.
FUNCTIONS = _words('sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp max gcd lcm')

# Units of one letter, in upright type after a value.
LETTER_UNITS = _words('m g s h L l N J W V K A')

# Powers of ten.
SCALES = {'hundred': 2, 'thousand': 3, 'million': 6, 'billion': 9, 'trillion': 12}

PERCENT = _words('pct per cent percent percentage percents')

NUMBERS = _words(
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
  'eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety half halves third thirds quarter '
  'quarters dozen dozens score double twice triple thrice'
)

# Words that change the value beside them: an answer with such a word differs from a reference without it.
COUNTING = NUMBERS | _words(
  'squared cubed remainder r minus negative plus times over divided root factorial base mod modulo infinity and or '
  'not no nor neither either both if otherwise unless when where maybe perhaps possibly probably except but instead '
  'wrong incorrect false approximately about around roughly nearly almost least most more less fewer greater than '
  'above below under between from to up any all none every undefined never unknown versus vs choose choices upper '
  'lower bound actually wait'
)

# Words without a meaning for the value.
NEUTRAL = _words('the a an of in is are per total exactly only there on for each')

# Units in one spelling.
UNITS = {
  'centimeter': 'cm', 'centimetre': 'cm', 'meter': 'm', 'metre': 'm', 'kilometer': 'km', 'kilometre': 'km',
  'millimeter': 'mm', 'millimetre': 'mm', 'gram': 'g', 'kilogram': 'kg', 'milligram': 'mg', 'liter': 'l', 'litre': 'l',
  'milliliter': 'ml', 'millilitre': 'ml', 'second': 's', 'sec': 's', 'minute': 'min', 'hour': 'h', 'hr': 'h',
  'day': 'day', 'inch': 'in', 'inche': 'in', 'foot': 'ft', 'feet': 'ft', 'yard': 'yd', 'mile': 'mi', 'pound': 'lb',
  'dollar': '$', 'usd': '$', 'buck': '$', 'euro': '€', 'eur': '€', 'deg': 'degree', 'radian': 'rad', 'a.m': 'am',
  'p.m': 'pm', 'cents': 'cent', '¢': 'cent', 'square': 'sq', 'squares': 'sq', 'cubic': 'cu', 'mph': 'mi h',
  'kph': 'km h', 'kmh': 'km h',
}  # fmt: skip

# Names of bases.
BASES = {'two': 2, 'binary': 2, 'three': 3, 'four': 4, 'five': 5, 'six': 6, 'seven': 7, 'eight': 8, 'octal': 8,
          'nine': 9, 'ten': 10, 'eleven': 11, 'twelve': 12, 'thirteen': 13, 'fourteen': 14, 'fifteen': 15,
          'sixteen': 16, 'hex': 16}  # fmt: skip

# Relations between statements, not values.
LOGIC = _words(
  '\\to \\Rightarrow \\iff \\lor \\land \\mid \\mapsto \\leftarrow \\gets \\because \\therefore \\leadsto '
  '\\hookrightarrow'
)

# Commands that may be in a value. Any other command is accepted only where the reference has it too.
COMMANDS = _words(
  'frac sqrt cdot times div pi pm mp sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp binom '
  'infty alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau '
  'upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega mathbb emptyset angle '
  'triangle degree lfloor rfloor lceil rceil ell hat vec overline bar circ prime imath'
)
