"""Names of the same thing in medicine: an abbreviation and what it stands for, or two names of one disease or drug.

Only those that no other reading of the letters rivals in an answer to a medical question. The initials of an option's
own words need no entry.
"""

import re

NAMES = """
MRI = magnetic resonance imaging
CT = computed tomography
EEG = electroencephalography = electroencephalogram
ECG = EKG = electrocardiography = electrocardiogram
EMG = electromyography
CXR = chest x-ray = chest radiograph = chest radiography
TB = tuberculosis
MI = myocardial infarction = heart attack = myocardial infarct
CHF = congestive heart failure
AF = atrial fibrillation = afib
VF = ventricular fibrillation
GERD = gastroesophageal reflux disease = GORD
DM = diabetes mellitus = diabetes
DKA = diabetic ketoacidosis
PCOS = polycystic ovary syndrome = polycystic ovarian syndrome
FSGS = focal segmental glomerulosclerosis = focal and segmental glomerulosclerosis
OA = osteoarthritis
SAH = subarachnoid hemorrhage
ICH = intracerebral hemorrhage
HCC = hepatocellular carcinoma
PTSD = post-traumatic stress disorder = posttraumatic stress disorder
ADHD = attention-deficit/hyperactivity disorder = attention deficit hyperactivity disorder
ESR = erythrocyte sedimentation rate
CRP = C-reactive protein
TSH = thyroid-stimulating hormone
ACTH = adrenocorticotropic hormone
GFR = glomerular filtration rate
FNA = fine-needle aspiration
TTE = transthoracic echocardiography = transthoracic echocardiogram
TEE = transesophageal echocardiography = transesophageal echocardiogram
HCTZ = hydrochlorothiazide
ASA = aspirin = acetylsalicylic acid
tPA = alteplase = tissue plasminogen activator
IVIG = intravenous immunoglobulin = intravenous immune globulin
HBV = hepatitis B virus = hepatitis B
HCV = hepatitis C virus = hepatitis C
HAV = hepatitis A virus = hepatitis A
HEV = hepatitis E virus = hepatitis E
EBV = Epstein-Barr virus
CMV = cytomegalovirus
HSV = herpes simplex virus = herpes simplex
VZV = varicella-zoster virus
epinephrine = adrenaline
norepinephrine = noradrenaline
acetaminophen = paracetamol
albuterol = salbutamol
meperidine = pethidine
isoproterenol = isoprenaline
furosemide = frusemide
normal saline = isotonic saline = 0.9% saline = 0.9% sodium chloride
giant cell arteritis = temporal arteritis = GCA
granulomatosis with polyangiitis = Wegener granulomatosis
pertussis = whooping cough
measles = rubeola
varicella = chickenpox
herpes zoster = shingles
stroke = cerebrovascular accident
hypertension = high blood pressure
vitamin A = retinol
vitamin B1 = thiamine = thiamin
vitamin B2 = riboflavin
vitamin B3 = niacin = nicotinic acid
vitamin B6 = pyridoxine
vitamin B9 = folate = folic acid
vitamin B12 = cobalamin = cyanocobalamin
vitamin C = ascorbic acid
vitamin D3 = vitamin D = cholecalciferol
vitamin E = tocopherol = alpha-tocopherol
vitamin K = phylloquinone
surgical excision = surgical removal
G6PD = glucose-6-phosphate dehydrogenase
LDH = lactate dehydrogenase
ACE = angiotensin-converting enzyme
ARB = angiotensin receptor blocker
Na-K-2Cl cotransporter = NKCC2
thalassemia minor = thalassemia trait
radiation therapy = radiotherapy
chemotherapy = chemo
influenza = flu
ultrasound = ultrasonography = sonography
regurgitation = insufficiency = regurg
cesarean delivery = cesarean section = C-section = cesarean
CO = cardiac output
SVR = systemic vascular resistance
PCWP = pulmonary capillary wedge pressure
HR = heart rate
BP = blood pressure
NAC = N-acetylcysteine = acetylcysteine
NK cells = natural killer cells
B cells = B lymphocytes
T cells = T lymphocytes
IgA = immunoglobulin A
IgD = immunoglobulin D
IgE = immunoglobulin E
IgG = immunoglobulin G
IgM = immunoglobulin M
FOBT = fecal occult blood test
celiac disease = celiac sprue
UTI = urinary tract infection
X-linked recessive = X-linked
ALS = amyotrophic lateral sclerosis
SLE = systemic lupus erythematosus = lupus
"""
# Each name, where it stands in a text, and the others of the same thing.
SYNONYMS = tuple(
    (re.compile(rf"(?<![\w\-]){re.escape(name)}(?![\w\-])", re.I), tuple(other for other in names if other != name))
    for names in ([name.strip() for name in line.split("=")] for line in NAMES.strip().splitlines())
    for name in names
)
