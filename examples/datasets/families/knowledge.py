"""The small facts that the families ask about: plain tables, one entry per fact.

Each table keeps to facts with one answer that most people would give, so that exact match is fair
(`short` has no opposite here: `tall` and `long` are both right).
"""


def _pairs(lines: str) -> dict[str, str]:
    """Read `key: value; key: value` text into a dictionary."""
    entries = (entry.split(":") for entry in " ".join(lines.split()).split(";"))
    return {key.strip(): value.strip() for key, value in entries}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CAPITALS = _pairs(
    """France: Paris; Italy: Rome; Spain: Madrid; Germany: Berlin; England: London;
    Portugal: Lisbon; Greece: Athens; Austria: Vienna; Poland: Warsaw; Norway: Oslo;
    Sweden: Stockholm; Denmark: Copenhagen; Finland: Helsinki; Ireland: Dublin; Hungary: Budapest;
    Russia: Moscow; Egypt: Cairo; Kenya: Nairobi; Morocco: Rabat; Ghana: Accra; Japan: Tokyo;
    China: Beijing; India: New Delhi; Thailand: Bangkok; Turkey: Ankara; Iran: Tehran;
    Canada: Ottawa; Mexico: Mexico City; Cuba: Havana; Peru: Lima; Chile: Santiago;
    Brazil: Brasilia; Argentina: Buenos Aires; Australia: Canberra; New Zealand: Wellington"""
)
CONTINENTS = _pairs(
    """France: Europe; Italy: Europe; Spain: Europe; Germany: Europe; Portugal: Europe;
    Greece: Europe; Austria: Europe; Poland: Europe; Norway: Europe; Sweden: Europe;
    Denmark: Europe; Finland: Europe; Ireland: Europe; Hungary: Europe; Kenya: Africa;
    Morocco: Africa; Ghana: Africa; Japan: Asia; China: Asia; India: Asia; Thailand: Asia;
    Iran: Asia; Canada: North America; Mexico: North America; Cuba: North America;
    Peru: South America; Chile: South America; Brazil: South America; Argentina: South America"""
)
OPPOSITES = _pairs(
    """big: small; small: big; hot: cold; cold: hot; fast: slow; slow: fast; tall: short;
    young: old; happy: sad; sad: happy; dark: light;
    open: closed; closed: open; full: empty; empty: full; clean: dirty; dirty: clean;
    wet: dry; dry: wet; loud: quiet; quiet: loud; strong: weak; weak: strong; rich: poor;
    poor: rich; early: late; late: early; soft: hard; up: down; down: up; left: right;
    day: night; night: day; wide: narrow; narrow: wide; deep: shallow; shallow: deep"""
)
COLORS = _pairs(
    """a banana: yellow; a lemon: yellow; the sun: yellow; fresh grass: green; a cucumber: green;
    a frog: green; fresh snow: white; milk: white; a ripe tomato: red; blood: red;
    a strawberry: red; a fire engine: red; a clear sky: blue; a blueberry: blue; coal: black;
    a raven: black; the night sky: black; chocolate: brown; a coffee bean: brown; a carrot: orange;
    a pumpkin: orange; a flamingo: pink; an elephant: gray; an eggplant: purple"""
)
YOUNG = _pairs(
    """dog: puppy; cat: kitten; cow: calf; horse: foal; sheep: lamb; goat: kid; pig: piglet;
    duck: duckling; goose: gosling; hen: chick; bear: cub; lion: cub; deer: fawn; kangaroo: joey;
    swan: cygnet; frog: tadpole; owl: owlet; elephant: calf; tiger: cub; whale: calf; wolf: pup;
    seal: pup; eagle: eaglet; spider: spiderling"""
)
LEGS = _pairs(
    """dog: 4; cat: 4; cow: 4; horse: 4; sheep: 4; goat: 4; pig: 4; lion: 4; tiger: 4; mouse: 4;
    duck: 2; hen: 2; owl: 2; eagle: 2; goose: 2; swan: 2; spider: 8; scorpion: 8; ant: 6; bee: 6;
    beetle: 6; fly: 6; butterfly: 6; snake: 0; fish: 0; worm: 0; whale: 0"""
)
IRREGULAR_PLURALS = _pairs(
    """mouse: mice; man: men; woman: women; child: children; foot: feet; tooth: teeth; goose: geese;
    leaf: leaves; wolf: wolves; knife: knives; wife: wives;
    loaf: loaves; sheep: sheep"""
)
PAST_TENSES = _pairs(
    """go: went; see: saw; eat: ate; run: ran; take: took; give: gave; come: came; write: wrote;
    drink: drank; sing: sang; swim: swam; buy: bought; bring: brought; think: thought; find: found;
    make: made; say: said; tell: told; sit: sat; stand: stood; sleep: slept; keep: kept; win: won;
    fly: flew; grow: grew; know: knew; break: broke; speak: spoke; walk: walked; jump: jumped;
    play: played; look: looked; open: opened; help: helped; wait: waited; stop: stopped;
    dance: danced; move: moved; carry: carried; try: tried"""
)
COMPARATIVES = _pairs(
    """big: bigger; small: smaller; tall: taller; short: shorter; fast: faster; slow: slower;
    old: older; young: younger; hot: hotter; cold: colder; happy: happier; sad: sadder;
    strong: stronger; weak: weaker; long: longer; loud: louder; quiet: quieter; dark: darker;
    light: lighter; rich: richer; poor: poorer; soft: softer; hard: harder; wet: wetter;
    dry: drier; clean: cleaner; dirty: dirtier; deep: deeper; wide: wider; good: better;
    bad: worse; easy: easier; heavy: heavier; cheap: cheaper; thin: thinner; thick: thicker"""
)
MONTHS = _words(
    """January February March April May June July August September October November December"""
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
