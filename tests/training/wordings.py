"""What people say for each edit: wordings to train on, and others that are kept for the test.

The words of a held-out sentence occur in training, the sentence does not: a text encoder that starts from nothing
cannot know a word it has never seen. `variations` makes the wordings to train on looser still.
"""

import random

TRAIN = {
    "black_and_white": """
        make it black and white|turn it black and white|black and white|convert to black and white|make it grayscale
        turn the photo into grayscale|greyscale|make it monochrome|a monochrome photo|remove the colors|remove all colour
        desaturate it|desaturate the image|drain the color from the picture|take the colours away|make it colorless
        turn this into a black and white photo|as a black and white photograph|make the picture gray|turn it to shades of gray
        get rid of the colors|strip the colour out|no colors please|convert the image to greyscale|give me a black and white version
        make it look like an old black and white film|black-and-white|b&w|noir style|without colour""",
    "sepia": """
        make it sepia|apply a sepia tone|sepia|turn it sepia|add a sepia filter|give it a sepia look|sepia toned photo
        make it look like an old photograph|make it look vintage|turn it into a vintage photo|an antique photo|make it old fashioned
        make it look a hundred years old|age the photo|tint it brown like an old picture|convert to sepia tones|give it brown tones
        make the picture look antique|like a photo from the 1900s|turn this into an old sepia photo|a faded brown photograph
        make it a brownish old picture|vintage sepia effect|old timey photo|use a sepia tint|nostalgic brown tones""",
    "invert": """
        invert the colors|invert the colours|invert it|make a negative|turn it into a negative|photo negative|negative image
        show the negative of the picture|swap light and dark|make it look like a film negative|reverse the colors
        reverse all colours of the image|flip the colors to their opposites|opposite colors|turn every color into its opposite
        inverted colours|invert the image|invert the whole picture|make dark parts light and light parts dark|color inversion
        use complementary colors everywhere|give me the inverted version|negative colors|convert to a negative|x-ray look""",
    "night": """
        make it night|turn it into night|make it nighttime|at night|as if it were night|change the time to midnight
        turn day into night|make it a night scene|make it look like night|it should be night|let night fall|after dark
        show it at midnight|moonlight|make it moonlit|a moonlit night|set it at night time|night falls over the scene
        make it late at night|change day to night|give it a night sky mood|make it a dark blue night|transform it into a nighttime photo
        have it take place at night|under the moon""",
    "sunset": """
        make it sunset|turn it into a sunset|at sunset|make it golden hour|as if the sun were setting|sunset light|add a sunset
        make it look like sunset|change the time to sunset|evening sun|make it dusk with an orange sky|give it an orange glow
        add an orange sunset glow|make the sun set|put a sunset in the sky|golden evening light|let the sun go down
        bathe it in sunset light|a sunset scene|during the golden hour|change the sky to sunset|make it a beautiful sunset
        show it at dusk|orange evening light|set the scene at sunset""",
    "warmer": """
        make it warmer|warmer|warmer colors|use warmer tones|make the colours warmer|increase the warmth|add warmth|warm it up
        make the picture warm|shift the colors to warm tones|give it a warm tone|warm filter|apply a warm filter|a warmer white balance
        raise the color temperature|warm up the image|make the light warmer|more yellow and red tones|give it warm light|a bit warmer
        warm the photo|make everything look warm|with a warm tint|add a warm tint|turn up the warmth""",
    "colder": """
        make it colder|colder|cooler colors|use colder tones|make the colours cooler|cool it down|make it bluish|add a blue tint
        give it a cold look|cold filter|apply a cool filter|a cooler white balance|lower the color temperature|cool down the image
        make the light colder|more blue tones|give it cold light|a bit colder|cool the photo|make everything look cold
        with a blue tint|make it icy blue|turn it cold and blue|shift the colors to cool tones|make it look chilly|cooler""",
    "snow": """
        make it snow|add snow|let it snow|make it snowy|snow|it is snowing|make it a snowy day|cover it with snow|add falling snow
        turn it into winter|make it winter|a winter scene|put snow everywhere|add some snowflakes|snowflakes in the air
        make it look like a snowstorm|a snowy winter day|have it covered in snow|blanket it in snow|let snow fall
        what would it look like if it were snowing|add a snowfall|snowy weather|give it a white winter look|heavy snow|make snow fall""",
    "fog": """
        add fog|make it foggy|fog|put it in fog|let fog roll in|add mist|make it misty|mist|a foggy day|a misty morning
        cover it with fog|add some haze|make it hazy|haze|thick fog|wrap it in mist|shroud it in fog|foggy weather
        make the air foggy|hide it behind mist|a hazy day|fill the scene with fog|add a layer of fog|let it disappear in the mist
        make it look foggy|with fog""",
    "rain": """
        make it rain|add rain|let it rain|make it rainy|rain|it is raining|a rainy day|make it a rainy day|add raindrops
        add falling rain|pouring rain|heavy rain|make it look rainy|rainy weather|put rain in the picture|a downpour|let it pour
        add a rain shower|make it wet with rain|show it in the rain|have rain fall|what if it were raining|make it pour with rain
        add streaks of rain|a rainstorm|in the rain""",
    "sketch": """
        make it a pencil sketch|pencil sketch|turn it into a pencil drawing|a pencil drawing|make it a sketch|sketch it
        turn it into a sketch|draw it with a pencil|as a pencil drawing|convert to a line drawing|line drawing|make it a drawing
        a hand drawn sketch|turn the photo into a drawing|graphite drawing|make it look drawn by hand|charcoal sketch
        make it look like a pencil sketch|outline drawing|draw only the outlines|sketch with a pencil on paper|black lines on white paper
        an artist's sketch|convert it into a pencil sketch|show me a sketch of it|make a drawing out of this""",
    "oil": """
        make it an oil painting|oil painting|turn it into an oil painting|as an oil painting|paint it|make it a painting
        turn it into a painting|a painting|make it look painted|with brush strokes|add brush strokes|in the style of an oil painting
        like a painting on canvas|oil on canvas|paint it with thick brush strokes|make it look like an oil painting|painterly style
        convert to a painting|as if painted by an artist|give it a painted look|impressionist painting|make the photo painterly
        an oil painted version|paint this picture in oil|acrylic painting""",
    "posterise": """
        posterize it|posterise the image|posterize|make it a poster|turn it into a poster|reduce the number of colors
        use only a few colors|fewer colors|poster effect|make it pop art|pop art style|flat colors|use flat areas of color
        limit the palette|a limited palette|make it look like a screen print|screen print|turn it into a comic book|comic style
        cartoon colors|make the colors flat|poster style|posterise|quantize the colors|give it a comic book look|as a pop art print""",
    "pixel": """
        make it pixel art|pixel art|turn it into pixel art|pixelate it|pixelate the image|pixelated|make it pixelated
        make it look like an old video game|8-bit style|8 bit graphics|retro game graphics|turn it into big pixels|big square pixels
        make it blocky|use large blocks|mosaic of squares|make it a mosaic|low resolution pixels|lower the resolution
        show it in pixels|convert to pixel art|as an 8-bit game|make it look like minecraft|censor it with blocks
        make the pixels huge|old computer game style""",
    "blur_edges": """
        blur the edges of the picture|blur the edges|blur the borders|make the edges blurry|blur around the edges
        blur everything but the center|keep the middle sharp and blur the rest|soften the edges|blurry edges|soft edges
        make the borders soft|blur the outside|blur the corners|focus on the center|blur the surroundings|only the middle in focus
        add a tilt shift blur to the edges|unfocus the edges|blur the frame|soft focus around the border|make the outside blurry
        out of focus edges|blur the periphery|sharp center with blurred borders|let the edges go out of focus""",
    "more_contrast": """
        more contrast|increase the contrast|add contrast|make it higher contrast|high contrast|raise the contrast
        boost the contrast|turn up the contrast|stronger contrast|give it more contrast|make it more contrasty|enhance the contrast
        make the darks darker and the lights lighter|make it punchier|punchy|bolder contrast|strong contrast|harsh contrast
        make the contrast stronger|crank up the contrast|more dramatic contrast|dramatic contrast|pump up the contrast
        a high contrast picture|contrast up""",
    "less_contrast": """
        less contrast|decrease the contrast|reduce the contrast|make it lower contrast|low contrast|lower the contrast
        turn down the contrast|weaker contrast|take away contrast|make it flat|make it less contrasty|flatten the image
        soften the contrast|soft contrast|make it look washed out|washed out|give it a faded look|fade it|mute it|flatter
        a low contrast picture|contrast down|with little contrast|drop the contrast|make the contrast weaker|dull the picture""",
    "brighter": """
        make it brighter|brighter|increase the brightness|brighten it|brighten the picture|more light|add light|lighten it
        make it lighter|turn up the brightness|raise the exposure|overexpose it a little|lighter|brighten up the photo
        raise the brightness|give it more light|let there be more light|make the image bright|bright|boost the brightness
        it is too dark, brighten it|increase exposure|lighten the image|higher brightness|light it up""",
    "darker": """
        make it darker|darker|decrease the brightness|darken it|darken the picture|less light|reduce the light|dim it
        make it dim|turn down the brightness|lower the exposure|underexpose it a little|dimmer|darken the photo
        lower the brightness|give it less light|take light away|make the image dark|dark|reduce the brightness
        it is too bright, darken it|decrease exposure|dim the image|lower brightness|turn the lights down""",
    "vignette": """
        add a vignette|vignette|vignette effect|give it a vignette|put a vignette on it|darken the corners|dark corners
        darken the edges|make the edges dark|make the corners darker|darken the borders|fade the edges to black|black corners
        a dark frame around it|shade the corners|add dark edges|apply a vignette|dark vignette|strong vignette
        fade to black at the borders|shadow around the edges|darken around the edges|let the corners fall into shadow
        spotlight on the center|put shadows in the corners|lens vignette""",
    "mirror": """
        mirror it|mirror|mirror the image|flip it|flip the image|flip horizontally|flip it horizontally|flip left and right
        swap left and right|reverse left and right|turn it around horizontally|reflect it|make a mirror image|mirror image
        mirrored|show it in a mirror|as seen in a mirror|flip the picture from left to right|horizontal flip
        mirror the photo horizontally|make it face the other way|reflect the picture|turn left into right|the other way around
        let it look in the other direction""",
    "green_to_red": """
        turn green things red|make green things red|make the green parts red|change green to red|green to red|turn green into red
        replace green with red|recolor the green areas red|paint everything green red|make all greens red|make the grass red
        turn the leaves red|turn the grass red|make the plants red|make the trees red|turn the greenery red
        swap green for red|color the green things red|red leaves|red grass|make the vegetation red|everything green becomes red
        change the color of green objects to red|make the green red|turn anything green to red""",
    "nothing": """
        do nothing|change nothing|leave it as it is|keep it as it is|leave it alone|no change|no changes|don't change anything
        keep the picture the same|make no changes|do not change it|do not edit it|nothing|leave the photo unchanged|unchanged
        keep it the same|return the same image|keep the original|the original please|just leave it|do not touch it
        don't do anything|stay the same|leave everything the way it is|same picture|it is fine as it is""",
}  # fmt: skip

TEST = {
    "black_and_white": "make the photo monochrome|turn the picture black and white|remove the colour from the image|convert it to grayscale",
    "sepia": "give the photo a sepia tone|make it look like an antique photograph|turn the picture into old brown tones|a vintage sepia photo",
    "invert": "invert all the colors of the photo|turn the picture into a negative|show it as a film negative|reverse the colours",
    "night": "make the scene nighttime|turn the photo into night|change it to a moonlit night|show it late at night",
    "sunset": "make the picture look like golden hour|add the light of a sunset|turn the sky to an orange sunset|show the scene at sunset",
    "warmer": "make the image warmer|give the photo warmer colours|add a bit of warmth|use a warm white balance",
    "colder": "make the image colder|give the photo cooler colours|make the picture look cold and bluish|use a cold white balance",
    "snow": "make the scene snowy|cover everything with snow|add some snow to the picture|turn the photo into a snowy winter scene",
    "fog": "make the scene foggy|add some fog to the picture|put mist over everything|turn it into a misty day",
    "rain": "make the scene rainy|add some rain to the picture|turn it into a rainy day|let it pour with heavy rain",
    "sketch": "turn the picture into a pencil sketch|make it look like a drawing|draw the photo with a pencil|convert the image to a sketch",
    "oil": "turn the picture into an oil painting|make the photo look like a painting|paint the image with brush strokes|convert it to oil on canvas",
    "posterise": "posterize the photo|make the picture look like a pop art poster|reduce it to a few flat colors|turn it into a screen print",
    "pixel": "pixelate the picture|turn the photo into pixel art|make the image look like an 8-bit video game|show it as big blocks",
    "blur_edges": "make the edges of the photo blurry|blur the outside of the picture|keep the center sharp with soft borders|blur around the borders",
    "more_contrast": "give the image more contrast|increase the contrast of the photo|make the picture high contrast|turn the contrast up",
    "less_contrast": "give the image less contrast|reduce the contrast of the photo|make the picture low contrast|turn the contrast down",
    "brighter": "make the image brighter|brighten the whole photo|increase the brightness of the picture|give the photo more light",
    "darker": "make the image darker|darken the whole photo|decrease the brightness of the picture|give the photo less light",
    "vignette": "add a dark vignette to the photo|give the picture dark corners|darken the corners of the image|put a vignette around it",
    "mirror": "mirror the picture|flip the photo horizontally|swap the left and right of the image|make it a mirror image",
    "green_to_red": "turn everything green red|make the green areas red|change the green things to red|replace the green with red",
    "nothing": "leave the picture as it is|do not change the photo|make no change to the image|keep everything the same",
}  # fmt: skip

EDITS = list(TRAIN)


def _sentences(text):
    return [sentence.strip() for line in text.strip().splitlines() for sentence in line.split("|")]


TRAIN = {name: _sentences(text) for name, text in TRAIN.items()}
TEST = {name: _sentences(text) for name, text in TEST.items()}

# What the finished model does, with all wordings that ask for it: see `redirect_text.py`.
ASKED = {name: [*TEST[name], *(TEST["posterise"] if name == "oil" else [])] for name in EDITS if name != "posterise"}

_BEFORE = ["please ", "can you ", "could you ", "i want you to ", "now ", "i would like you to ", "hey, ", "edit: ", "just "]
_AFTER = [" please", ".", "!", "?", ", please", " now", " for me", " a bit", " thanks", " here", " a lot"]
_SAME = [
    ("picture", "photo", "image", "photograph"),
    ("color", "colour"), ("colors", "colours"), ("gray", "grey"), ("grayscale", "greyscale"),
    ("make", "turn"), ("it", "this", "the picture", "the image", "the photo", "everything", "the scene"),
    ("posterize", "posterise"), ("center", "middle"), ("borders", "edges"), ("add", "put", "give it"),
]  # fmt: skip


def variations(sentence, count, seed, held_out):
    """`count` looser forms of a sentence: politeness, synonyms, dropped articles; never one of `held_out`."""
    draw = random.Random(f"{seed} {sentence}")
    forms = [sentence]
    while len(forms) < count:
        words = sentence.split(" ")
        for i, word in enumerate(words):
            group = next((g for g in _SAME if word in g), None)
            # "turn" for "make" would break the grammar of "make it snow": rarely, as people do.
            if group and draw.random() < (0.05 if word in ("make", "turn", "add") else 0.4):
                words[i] = draw.choice(group)
        words = [w for w in words if w not in ("the", "a", "an", "it") or draw.random() > 0.1]
        text = " ".join(words)
        if draw.random() < 0.25:
            text = draw.choice(_BEFORE) + text
        if draw.random() < 0.25:
            text += draw.choice(_AFTER)
        if text and text not in held_out:
            forms.append(text)
    return forms


def held_out():
    """Every sentence of the test."""
    return {sentence for sentences in TEST.values() for sentence in sentences}


def check():
    """Fails when a wording is in both sets, twice, or an edit has too few."""
    seen = {}
    for name, sentences in TRAIN.items():
        if len(sentences) < 20:
            raise ValueError(f"{name} has {len(sentences)} wordings")
        for sentence in sentences:
            if sentence in seen or sentence in held_out():
                raise ValueError(f"`{sentence}` of {name} is elsewhere too")
            seen[sentence] = name
    words = {word for s in seen for word in s.replace(",", "").split()}
    unknown = {w for s in held_out() for w in s.replace(",", "").split()} - words
    if unknown:
        raise ValueError(f"held-out wordings use words that training never shows: {unknown}")


if __name__ == "__main__":
    check()
    print({name: len(sentences) for name, sentences in TRAIN.items()}, sum(map(len, TRAIN.values())))
